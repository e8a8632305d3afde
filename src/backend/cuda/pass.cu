// One pass over data for many fits at once.
//
// A block works through one chunk of one fit's rows, tile by tile. First each thread
// takes a row of the tile: it puts the mixture there into *columns* (what is summed,
// in terms of drivers) and writes the monomials of x beside them. Then each thread
// takes an *output*: the sum over the tile's rows of one column times one monomial.
// No two threads add to one sum, so every sum has one order.
//
// Drivers of an expert: predictor t of its mean, output weight ("scale"), log
// variance, gate (bias, or a router's score); a mean is scale * activation(t), so
// every kind of expert is affine in x driver by driver. The notation is that of
// `model::score`: with a' and s' the derivatives of log-joint and log-weight,
//
//   R_u = r a'_u    W_u = w s'_u
//   gradient_u = R_u - W_u
//   Hessian_uw = W_u W_w - R_u R_w                                (two experts)
//              + r (a'_u a'_w + a''_uw) - w (s'_u s'_w + s''_uw)   (one expert)

#define PART_PREDICTOR 0
#define PART_SCALE 1
#define PART_VARIANCE 2
#define PART_GATE 3

#define OPERATION_VALUE 0
#define OPERATION_GRADIENT 1
#define OPERATION_DERIVATIVES 2
#define OPERATION_OUTER 3
#define OPERATION_EXPECTATION 4

struct PassArguments {
  Structure structure;
  Rows rows;
  const double* tables;
  const u32* samples;
  const u32* active;
  const u32* active_count;
  const u32* wanted;
  const u32* outputs;
  double* partial;
  // Bit i: expert i has an output weight; has a gate coordinate.
  u64 scaled;
  u64 gated;
  u64 row_count;
  u64 chunk_rows;
  u32 chunks;
  u32 output_count;
  u32 column_count;
  u32 monomial_count;
  u32 tile_rows;
  u32 wanted_code;
};

#ifdef SMOE_SCALED
#define SCALED(arguments) SMOE_SCALED
#define GATED(arguments) SMOE_GATED
#else
#define SCALED(arguments) ((arguments).scaled)
#define GATED(arguments) ((arguments).gated)
#endif

#define MOST_DRIVERS (4 * MOST_EXPERTS)

// The mixture at (x, y).
struct Point {
  Law law;
  real responsibility[MOST_EXPERTS];
  real residual[MOST_EXPERTS];
};

// 1 / variance of an expert: a block's copy of the table has it in the variance's place.
__device__ __forceinline__ real precision_of(const double* table, int d, int i) {
  return (real)entries_of(table, d, i).variance;
}

// Moves to (x, y) and returns log p(y | x).
__device__ __forceinline__ real observe(const Structure& structure, const double* table,
                                        const real* x, real y, Point& point) {
  const int count = EXPERTS(structure), d = DIMENSION(structure);
  law_at(structure, table, x, point.law);
  real joint[MOST_EXPERTS];
  real best = (real)-INFINITE;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    Entries e = entries_of(table, d, i);
    real residual = y - point.law.mean[i];
    point.residual[i] = residual;
    joint[i] = point.law.log_weight[i] -
               (real)0.5 * ((real)LOG_TWO_PI + e.log_variance +
                            residual * residual * precision_of(table, d, i));
    best = fmax(best, joint[i]);
  }
  return normalised_exponentials(joint, best, count, point.responsibility);
}

// Where a row's columns go: entry c of row `row` is at first[c * stride].
struct Column {
  real* first;
  int stride;
  int next;
  __device__ __forceinline__ void put(real value) { first[(next++) * stride] = value; }
};

// One expert's derivatives at a row.
struct Slopes {
  // Of the mean in predictor and output weight; second ones (t, t) and (t, scale).
  real by_predictor, by_scale, twice, mixed;
  // Of the log-weight in the mean, and in the gate's own driver.
  real mean_first, mean_second, gate_first, gate_second;
  // 1 / variance, residual / variance, residual^2 / variance
  real precision, scaled, square;
};

__device__ __forceinline__ Slopes slopes_of(const Structure& structure, const double* table,
                                            const Point& point, int i) {
  Entries e = entries_of(table, DIMENSION(structure), i);
  Jet a = point.law.activation[i], gate = point.law.gate[i];
  bool router = is_router(GATE(structure));
  Slopes s;
  s.by_predictor = e.scale * a.first;
  s.by_scale = a.value;
  s.twice = e.scale * a.second;
  s.mixed = a.first;
  s.mean_first = router ? (real)0 : gate.first;
  s.mean_second = router ? (real)0 : gate.second;
  s.gate_first = router ? gate.first : (real)1;
  s.gate_second = router ? gate.second : (real)0;
  s.precision = precision_of(table, DIMENSION(structure), i);
  s.scaled = point.residual[i] * s.precision;
  s.square = point.residual[i] * s.scaled;
  return s;
}

__device__ __forceinline__ bool has_part(u64 scaled, u64 gated, int i, int part) {
  if (part == PART_SCALE) return (scaled >> i) & 1;
  if (part == PART_GATE) return (gated >> i) & 1;
  return true;
}

// Gradient, Hessian or outer product, driver by driver.
template <int OPERATION>
__device__ __forceinline__ void put_derivatives(const PassArguments& arguments,
                                                const double* table, const Point& point,
                                                real count, Column& column) {
  const int experts = EXPERTS(arguments.structure);
  const u64 scaled = SCALED(arguments), gated = GATED(arguments);
  // a' and s' of each driver, times responsibility and weight.
  real joint[MOST_DRIVERS], weight[MOST_DRIVERS];
  int drivers = 0;
#pragma unroll
  for (int i = 0; i < experts; ++i) {
    Slopes s = slopes_of(arguments.structure, table, point, i);
    real r = point.responsibility[i], w = point.law.weight[i];
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      if (!has_part(scaled, gated, i, part)) continue;
      real mean = part == PART_PREDICTOR ? s.by_predictor : part == PART_SCALE ? s.by_scale : (real)0;
      real of_weight = part == PART_GATE ? s.gate_first : s.mean_first * mean;
      real of_density = part == PART_VARIANCE ? (real)0.5 * (s.square - (real)1) : s.scaled * mean;
      // A dropped expert pulls at nothing, whatever its log-weight's slope.
      bool dropped = w == (real)0 && r == (real)0;
      joint[drivers] = dropped ? (real)0 : r * (of_weight + of_density);
      weight[drivers] = dropped ? (real)0 : w * of_weight;
      ++drivers;
    }
  }
  // R_u - W_u times the count, -1/2 of that, and R_u + W_u.
  real score[MOST_DRIVERS], halved[MOST_DRIVERS], sum[MOST_DRIVERS];
#pragma unroll
  for (int u = 0; u < drivers; ++u) {
    score[u] = count * (joint[u] - weight[u]);
    halved[u] = (real)-0.5 * score[u];
    sum[u] = joint[u] + weight[u];
    if (OPERATION != OPERATION_OUTER) column.put(score[u]);
  }
  if (OPERATION == OPERATION_GRADIENT) return;
  int u = 0;
#pragma unroll
  for (int i = 0; i < experts; ++i) {
    Slopes s = slopes_of(arguments.structure, table, point, i);
    real r = point.responsibility[i], w = point.law.weight[i];
    bool dropped = w == (real)0 && r == (real)0;
    // d log joint and d log weight in the mean, for the curvature of the mean.
    real by_mean = r * (s.mean_first + s.scaled) - w * s.mean_first;
#pragma unroll
    for (int part = 0; part < 4; ++part) {
      if (!has_part(scaled, gated, i, part)) continue;
      int v = u;
#pragma unroll
      for (int j = i; j < experts; ++j) {
#pragma unroll
        for (int other = 0; other < 4; ++other) {
          if (!has_part(scaled, gated, j, other) || (j == i && other < part)) continue;
          real value;
          if (OPERATION == OPERATION_OUTER) {
            value = score[u] * (joint[v] - weight[v]);
          } else {
            value = halved[u] * sum[v] + halved[v] * sum[u];
            if (j == i && !dropped) {
              real mean_u = part == PART_PREDICTOR ? s.by_predictor
                            : part == PART_SCALE   ? s.by_scale
                                                   : (real)0;
              real mean_v = other == PART_PREDICTOR ? s.by_predictor
                            : other == PART_SCALE   ? s.by_scale
                                                    : (real)0;
              real weight_u = part == PART_GATE ? s.gate_first : s.mean_first * mean_u;
              real weight_v = other == PART_GATE ? s.gate_first : s.mean_first * mean_v;
              real half = (real)0.5 * (s.square - (real)1);
              real joint_u = weight_u + (part == PART_VARIANCE ? half : s.scaled * mean_u);
              real joint_v = weight_v + (other == PART_VARIANCE ? half : s.scaled * mean_v);
              real own = r * joint_u * joint_v - w * weight_u * weight_v;
              // Second derivatives.
              bool means = part <= PART_SCALE && other <= PART_SCALE;
              if (means) {
                own += ((r - w) * s.mean_second - r * s.precision) * mean_u * mean_v;
                if (part == PART_PREDICTOR) {
                  own += by_mean * (other == PART_PREDICTOR ? s.twice : s.mixed);
                }
              } else if (other == PART_VARIANCE && part <= PART_SCALE) {
                own -= r * s.scaled * mean_u;
              } else if (other == PART_VARIANCE && part == PART_VARIANCE) {
                own -= (real)0.5 * r * s.square;
              } else if (part == PART_GATE && other == PART_GATE) {
                own += (r - w) * s.gate_second;
              }
              value += count * own;
            }
          }
          column.put(value);
          ++v;
        }
      }
      ++u;
    }
  }
}

// L of `GateKind::curvature_bound`.
__device__ __forceinline__ real curvature_bound(const Structure& structure, const Jet& s,
                                                real weight) {
  int gate = GATE(structure);
  real kappa = (real)structure.kappa;
  if (gate < GATE_COMPETITION) return (real)0;
  if (gate == GATE_COMPETITION + 2 * RESPONSE_SOFTPLUS) {
    return (real)0.25 * fabs(kappa) + (real)0.5 * kappa * kappa;
  }
  if (gate == GATE_COMPETITION + 2 * RESPONSE_ABSOLUTE) return (real)0.5 * kappa * kappa;
  return weight * (fmax(s.second, (real)0) + s.first * s.first);
}

// Sums of one expectation-maximisation step.
__device__ __forceinline__ void put_expectation(const PassArguments& arguments,
                                                const double* table, const Point& point,
                                                real count, Column& column) {
  const int experts = EXPERTS(arguments.structure);
  const u64 scaled = SCALED(arguments), gated = GATED(arguments);
#pragma unroll
  for (int i = 0; i < experts; ++i) {
    Slopes s = slopes_of(arguments.structure, table, point, i);
    real w = point.law.weight[i], r = count * point.responsibility[i];
    bool dropped = w == (real)0 && r == (real)0;
    real residual = point.residual[i];
    real surplus = point.responsibility[i] - w;
    real score = dropped ? (real)0 : r * s.scaled + count * surplus * s.mean_first;
    real bound = count * curvature_bound(arguments.structure, point.law.gate[i], w);
    real curvature = dropped ? (real)0 : bound + r * s.precision;
    column.put(r);
    column.put(r * residual * residual);
    real mean[2] = {s.by_predictor, s.by_scale};
    int parts = has_part(scaled, gated, i, PART_SCALE) ? 2 : 1;
    for (int a = 0; a < parts; ++a) column.put(score * mean[a]);
    for (int a = 0; a < parts; ++a) column.put(r * residual * mean[a]);
    for (int a = 0; a < parts; ++a) {
      for (int b = a; b < parts; ++b) column.put(curvature * mean[a] * mean[b]);
    }
    for (int a = 0; a < parts; ++a) {
      for (int b = a; b < parts; ++b) column.put(r * mean[a] * mean[b]);
    }
  }
#pragma unroll
  for (int i = 0; i < experts; ++i) {
    if (!has_part(scaled, gated, i, PART_GATE)) continue;
    Slopes s = slopes_of(arguments.structure, table, point, i);
    real w = point.law.weight[i];
    bool dropped = w == (real)0 && point.responsibility[i] == (real)0;
    column.put(dropped ? (real)0 : count * (point.responsibility[i] - w) * s.gate_first);
  }
#pragma unroll
  for (int i = 0; i < experts; ++i) {
    if (!has_part(scaled, gated, i, PART_GATE)) continue;
    Slopes s = slopes_of(arguments.structure, table, point, i);
    real w = point.law.weight[i];
#pragma unroll
    for (int j = i; j < experts; ++j) {
      if (!has_part(scaled, gated, j, PART_GATE)) continue;
      Slopes t = slopes_of(arguments.structure, table, point, j);
      real v = point.law.weight[j];
      bool dropped = w == (real)0 || v == (real)0;
      real factor = (i == j ? w : (real)0) - w * v;
      column.put(dropped ? (real)0 : count * s.gate_first * t.gate_first * factor);
    }
  }
}

template <int OPERATION>
__device__ __forceinline__ void pass(const PassArguments& arguments, double* memory) {
  const u32 slot = blockIdx.x / arguments.chunks, chunk = blockIdx.x % arguments.chunks;
  if (slot >= *arguments.active_count) return;
  const u32 fit = arguments.active[slot];
  if (arguments.wanted && arguments.wanted[fit] != arguments.wanted_code) return;

  const int d = DIMENSION(arguments.structure);
  const u32 thread = threadIdx.x, threads = blockDim.x;
  const u32 outputs = arguments.output_count, columns = arguments.column_count;
  const u32 tile_rows = arguments.tile_rows, stride = tile_rows + 1;
  const u32 table_length = EXPERTS(arguments.structure) * entries_stride(d);
  // If there are fewer outputs than threads, several share one, each with its own
  // part of the rows.
  const u32 groups = outputs < threads ? threads / outputs : 1;
  const u32 group_rows = (tile_rows + groups - 1) / groups;

  // table | sums, group by group | columns, then monomials, row by row
  double* table = memory;
  double* sums = table + table_length;
  real* tile = (real*)(sums + groups * outputs);
  for (u32 k = thread; k < table_length; k += threads) {
    double entry = arguments.tables[(u64)fit * table_length + k];
    bool variance = k % entries_stride(d) == d + 2;
    table[k] = variance ? 1.0 / entry : entry;
  }
  for (u32 k = thread; k < groups * outputs; k += threads) sums[k] = 0.0;
  __syncthreads();

  const u64 width = arguments.rows.dimension + 1 + arguments.rows.counted;
  const u64 capacity = arguments.rows.capacity;
  const double* values = arguments.rows.values + arguments.samples[fit] * width * capacity;
  const u64 first = (u64)chunk * arguments.chunk_rows;
  const u64 end = min(first + arguments.chunk_rows, arguments.row_count);

  for (u64 start = first; start < end; start += tile_rows) {
    for (u32 row = thread; row < tile_rows; row += threads) {
      u64 n = start + row;
      if (n < end) {
        real x[MOST_DIMENSION];
#pragma unroll
        for (int j = 0; j < d; ++j) x[j] = (real)values[j * capacity + n];
        real y = (real)values[d * capacity + n];
        real count = arguments.rows.counted ? (real)values[(d + 1) * capacity + n] : (real)1;
        Point point;
        real log_density = observe(arguments.structure, table, x, y, point);
        Column column;
        column.first = tile + row;
        column.stride = stride;
        column.next = 0;
        // A row that was never seen adds nothing, even where its density is 0.
        column.put(count == (real)0 ? (real)0 : count * log_density);
        if (OPERATION == OPERATION_EXPECTATION) {
          put_expectation(arguments, table, point, count, column);
        } else if (OPERATION != OPERATION_VALUE) {
          put_derivatives<OPERATION>(arguments, table, point, count, column);
        }
        real* monomial = tile + columns * stride + row;
        int next = 0;
#pragma unroll
        for (int a = -1; a < d; ++a) {
#pragma unroll
          for (int b = a; b < d; ++b) {
            real left = a < 0 ? (real)1 : x[a], right = b < 0 ? (real)1 : x[b];
            if (next < (int)arguments.monomial_count) monomial[next * stride] = left * right;
            ++next;
          }
        }
      }
    }
    __syncthreads();
    const u32 used = (u32)min((u64)tile_rows, end - start);
    for (u32 k = thread; k < groups * outputs; k += threads) {
      const u32 output = arguments.outputs[k % outputs];
      const u32 from = min((k / outputs) * group_rows, used);
      const u32 to = min(from + group_rows, used);
      const real* column = tile + (output & 0xffffu) * stride + from;
      const real* monomial = tile + (columns + (output >> 16)) * stride + from;
      real sum = (real)0;
      // A signed index cannot wrap around, so that offsets are known when it is unrolled.
      const int rows = (int)(to - from);
#pragma unroll 8
      for (int row = 0; row < rows; ++row) sum += column[row] * monomial[row];
      sums[k] += (double)sum;
    }
    __syncthreads();
  }

  double* partial = arguments.partial + ((u64)slot * arguments.chunks + chunk) * outputs;
  for (u32 k = thread; k < outputs; k += threads) {
    double sum = sums[k];
    for (u32 group = 1; group < groups; ++group) sum += sums[group * outputs + k];
    partial[k] = sum;
  }
}

KERNEL(pass_value, PassArguments) {
  SHARED(memory);
  pass<OPERATION_VALUE>(arguments, memory);
}

KERNEL(pass_gradient, PassArguments) {
  SHARED(memory);
  pass<OPERATION_GRADIENT>(arguments, memory);
}

KERNEL(pass_derivatives, PassArguments) {
  SHARED(memory);
  pass<OPERATION_DERIVATIVES>(arguments, memory);
}

KERNEL(pass_outer, PassArguments) {
  SHARED(memory);
  pass<OPERATION_OUTER>(arguments, memory);
}

KERNEL(pass_expectation, PassArguments) {
  SHARED(memory);
  pass<OPERATION_EXPECTATION>(arguments, memory);
}

struct TotalArguments {
  const double* partial;
  const u32* active;
  const u32* active_count;
  const u32* wanted;
  double* totals;
  u32 chunks;
  u32 output_count;
  u32 wanted_code;
  u32 padding;
};

// Sums over a fit's chunks in their order, compensated (Neumaier 1974); a block
// per fit.
KERNEL(pass_total, TotalArguments) {
  const u32 slot = blockIdx.x;
  if (slot >= *arguments.active_count) return;
  const u32 fit = arguments.active[slot];
  if (arguments.wanted && arguments.wanted[fit] != arguments.wanted_code) return;
  const u32 outputs = arguments.output_count;
  const double* partial = arguments.partial + (u64)slot * arguments.chunks * outputs;
  for (u32 k = threadIdx.x; k < outputs; k += blockDim.x) {
    double sum = 0.0, lost = 0.0;
    for (u32 chunk = 0; chunk < arguments.chunks; ++chunk) {
      double value = partial[(u64)chunk * outputs + k];
      double next = __dadd_rn(sum, value);
      double small = fabs(sum) >= fabs(value) ? value : sum;
      double large = fabs(sum) >= fabs(value) ? sum : value;
      lost = __dadd_rn(lost, __dadd_rn(__dsub_rn(large, next), small));
      sum = next;
    }
    // An infinite sum has no rounding to give back.
    arguments.totals[(u64)fit * outputs + k] = isfinite(sum) ? sum + lost : sum;
  }
}
