// Independent samples of one mixture, many at once: twin of `model::draw_sample`.

// One kind of input law, with its numbers in an array:
// uniform: low (d) | high - low (d);
// normal: mean (d) | standard deviation (d) | truncation | mass below it | mass inside;
// grid: the points, one after another.
#define LAW_UNIFORM 0
#define LAW_NORMAL 1
#define LAW_GRID 2

struct Draw {
  const double* table;
  const double* law;
  // Two words of each sample's stream.
  const u32* keys;
  // The samples; layout as of `Rows`.
  double* values;
  u64 rows;
  u64 samples;
  // Points of a grid.
  u64 points;
  Structure structure;
  int kind;
  int padding;
};

static_assert(sizeof(real) == sizeof(double), "samples are drawn in f64");

// The input of one row; its first uniform is known.
__device__ __forceinline__ void draw_input(const Draw& draw, u32 key0, u32 key1, u64 row,
                                           double uniform, double* x) {
  const int d = DIMENSION(draw.structure);
  const double* law = draw.law;
  if (draw.kind == LAW_GRID) {
    u64 point = (u64)__dmul_rn(uniform, (double)draw.points);
    if (point >= draw.points) point = draw.points - 1;
    for (int j = 0; j < d; ++j) x[j] = law[point * d + j];
    return;
  }
  // The coordinates after the first share uniforms two by two.
  Uniforms pair;
  pair.first = 0.0;
  pair.second = uniform;
  for (int j = 0; j < d; ++j) {
    if (j % 2 == 1) pair = uniform_pair(key0, key1, row, (u64)(2 + j / 2));
    double u = j % 2 == 1 ? pair.first : pair.second;
    if (draw.kind == LAW_UNIFORM) {
      x[j] = __dadd_rn(law[j], __dmul_rn(law[d + j], u));
    } else {
      const double truncation = law[2 * d], below = law[2 * d + 1], inside = law[2 * d + 2];
      double z = normal_quantile(__dadd_rn(below, __dmul_rn(inside, u)));
      z = fmin(fmax(z, -truncation), truncation);
      x[j] = __dadd_rn(law[j], __dmul_rn(law[d + j], z));
    }
  }
}

// The first expert at which the cumulated weights exceed the uniform.
__device__ __forceinline__ int choose(const Structure& structure, const Law& law,
                                      double uniform) {
  const int count = EXPERTS(structure);
  double cumulated = 0.0;
  int chosen = 0;
  for (int i = 0; i < count; ++i) {
    if (law.log_weight[i] == -INFINITE) continue;
    chosen = i;
    cumulated += exp(law.log_weight[i]);
    if (uniform < cumulated) break;
  }
  return chosen;
}

KERNEL(draw_samples, Draw) {
  const Structure structure = arguments.structure;
  const int d = DIMENSION(structure);
  const u64 rows = arguments.rows, total = rows * arguments.samples;
  const u64 threads = (u64)gridDim.x * blockDim.x;
  double x[MOST_DIMENSION];
  Law law;
  for (u64 k = (u64)blockIdx.x * blockDim.x + threadIdx.x; k < total; k += threads) {
    const u64 sample = k / rows, row = k % rows;
    const u32 key0 = arguments.keys[2 * sample], key1 = arguments.keys[2 * sample + 1];
    double* column = arguments.values + sample * (u64)(d + 1) * rows + row;
    // Draw 0: the label and the first input.
    Uniforms first = uniform_pair(key0, key1, row, 0);
    draw_input(arguments, key0, key1, row, first.second, x);
    for (int j = 0; j < d; ++j) column[(u64)j * rows] = x[j];
    law_at(structure, arguments.table, x, law);
    const int expert = choose(structure, law, first.first);
    const double deviation = sqrt((double)entries_of(arguments.table, d, expert).variance);
    // Draw 1: the response.
    const double noise = standard_normal(key0, key1, row, 1);
    column[(u64)d * rows] = law.mean[expert] + deviation * noise;
  }
}
