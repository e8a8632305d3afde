// Divergences between pairs of mixtures at many inputs: twin of
// `loss::divergence::divergence` with equal steps, where the formulas are explained.
//
// What does not depend on y is worked out first, one thread per request and mixture.
// A mixture at an input is then
//
//   number of active experts | low | high | narrowest deviation | terms
//
// [low, high] being the range of y that holds its mass, and each term
//
//   log weight - log sqrt(2 pi variance) | mean | 1 / deviation

#define HEADER 4
#define TERM 3

struct Pair {
  Structure p, q;
  // Where their tables begin.
  u64 table_p, table_q;
};

struct WriteTerms {
  const Pair* pairs;
  const double* tables;
  // The pair of each request, and its input.
  const u32* pair_of;
  const double* inputs;
  double* terms;
  u64 requests;
  // Half-width of the range in deviations.
  double range;
  // Numbers that an input and a mixture's terms have room for.
  int input_stride;
  int stride;
};

static_assert(sizeof(real) == sizeof(double), "divergences are computed in f64");

KERNEL(write_terms, WriteTerms) {
  const u64 k = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  if (k >= 2 * arguments.requests) return;
  const u64 request = k / 2;
  const Pair& pair = arguments.pairs[arguments.pair_of[request]];
  const Structure structure = k % 2 == 0 ? pair.p : pair.q;
  const double* table = arguments.tables + (k % 2 == 0 ? pair.table_p : pair.table_q);
  const int d = DIMENSION(structure);
  double x[MOST_DIMENSION];
  for (int j = 0; j < d; ++j) x[j] = arguments.inputs[request * arguments.input_stride + j];
  Law law;
  law_at(structure, table, x, law);
  double* own = arguments.terms + k * arguments.stride;
  double low = INFINITE, high = -INFINITE, narrowest = INFINITE;
  int active = 0;
  for (int i = 0; i < EXPERTS(structure); ++i) {
    if (!(law.log_weight[i] > -INFINITE)) continue;
    const double deviation = sqrt(entries_of(table, d, i).variance);
    const double reach = __dmul_rn(arguments.range, deviation);
    low = fmin(low, __dsub_rn(law.mean[i], reach));
    high = fmax(high, __dadd_rn(law.mean[i], reach));
    narrowest = fmin(narrowest, deviation);
    double* term = own + HEADER + TERM * active;
    term[0] = law.log_weight[i] - 0.5 * LOG_TWO_PI - log(deviation);
    term[1] = law.mean[i];
    term[2] = 1.0 / deviation;
    ++active;
  }
  own[0] = (double)active;
  own[1] = low;
  own[2] = high;
  own[3] = narrowest;
}

struct SumOverSteps {
  const double* terms;
  // h^2 and KL of each request; not a number where the processor must compute them.
  double* results;
  u64 requests;
  double nodes_per_deviation;
  double most_nodes;
  int stride;
  int padding;
};

__device__ __forceinline__ double log_term(const double* term, double y) {
  const double z = (y - term[1]) * term[2];
  return term[0] - 0.5 * z * z;
}

__device__ __forceinline__ double log_density(const double* mixture, double y) {
  const int active = (int)mixture[0];
  double top = -INFINITE;
  for (int i = 0; i < active; ++i) top = fmax(top, log_term(mixture + HEADER + TERM * i, y));
  double sum = 0.0;
  for (int i = 0; i < active; ++i) sum += exp(log_term(mixture + HEADER + TERM * i, y) - top);
  return top + log(sum);
}

// One block per request; shared memory: both mixtures, then two sums per thread.
KERNEL(sum_over_steps, SumOverSteps) {
  SHARED(memory);
  const double* p = memory;
  const double* q = memory + arguments.stride;
  double* sums = memory + 2 * arguments.stride;
  const int thread = threadIdx.x, threads = blockDim.x;
  for (u64 request = blockIdx.x; request < arguments.requests; request += gridDim.x) {
    const double* given = arguments.terms + 2 * request * arguments.stride;
    for (int i = thread; i < 2 * arguments.stride; i += threads) memory[i] = given[i];
    __syncthreads();
    const double low = fmin(p[1], q[1]), high = fmax(p[2], q[2]);
    const double narrowest = fmin(p[3], q[3]);
    const double nodes = ceil((high - low) / (narrowest / arguments.nodes_per_deviation));
    double hellinger = NOT_A_NUMBER, kullback = NOT_A_NUMBER, step = 0.0;
    if (nodes <= arguments.most_nodes) {
      const int count = (int)nodes;
      step = (high - low) / (double)count;
      hellinger = kullback = 0.0;
      for (int k = thread; k <= count; k += threads) {
        const double y = fma(step, (double)k, low);
        const double log_p = log_density(p, y), log_q = log_density(q, y);
        const double difference = log_p - log_q;
        const double gap = expm1(-0.5 * fabs(difference));
        hellinger += 0.5 * exp(fmax(log_p, log_q)) * gap * gap;
        // p (D + e^-D - 1): by its series where that would cancel; far out, where
        // e^-D overflows, it is q.
        if (difference < -600.0) {
          kullback += exp(log_q);
        } else if (fabs(difference) < 1e-2) {
          double series = 1.0 / 120.0 - difference / 720.0;
          series = 1.0 / 24.0 - difference * series;
          series = 1.0 / 6.0 - difference * series;
          series = 0.5 - difference * series;
          kullback += exp(log_p) * (difference * difference * series);
        } else {
          kullback += exp(log_p) * (difference + expm1(-difference));
        }
      }
    }
    sums[thread] = hellinger;
    sums[threads + thread] = kullback;
    for (int half = threads / 2; half > 0; half /= 2) {
      __syncthreads();
      if (thread < half) {
        sums[thread] += sums[thread + half];
        sums[threads + thread] += sums[threads + thread + half];
      }
    }
    if (thread == 0) {
      arguments.results[2 * request] = step * sums[0];
      arguments.results[2 * request + 1] = step * sums[threads];
    }
    // The next request overwrites what others may still read.
    __syncthreads();
  }
}
