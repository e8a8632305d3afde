// Many climbs of a log-likelihood at once, each one step per launch: twin of
// `fit::em` and of the smooth case of `fit::newton` and `fit::quadratic`, where the
// formulas are explained.
//
// Between two launches of `advance` others sum, over the rows, what every fit wants
// to know at its trial point. One block moves one fit.

// What the totals at a fit's trial point are to decide.
#define AT_EXPECTATION_START 0
#define AT_EXPECTATION_STEP 1
#define AT_NEWTON_START 2
#define AT_NEWTON_STEP 3
// The step from a point whose score is below tolerance.
#define AT_LAST_STEP 4

#define WANTS_NOTHING 0
#define WANTS_EXPECTATION 1
#define WANTS_DERIVATIVES 2

#define HALT_NONE 0
#define HALT_CONVERGED 1
#define HALT_SADDLE 2
#define HALT_NO_ASCENT 3
#define HALT_SMALL_GAIN 4
#define HALT_MAX_ITERATIONS 5
#define HALT_SINGULAR 6
#define HALT_NON_FINITE 7
#define HALT_DECREASED 8

#define GAIN_TOTAL 0
#define GAIN_RELATIVE 1
#define GAIN_MEAN 2

// Parts of an expectation-maximisation step.
#define PART_EXPERTS 1
#define PART_GATE 2

// As the constants of `fit::em`, `fit::newton` and `fit::quadratic`.
#define EM_HALVINGS 40
#define NEWTON_HALVINGS 30
#define SUFFICIENT 0.1
#define LITTLE 1e-6
#define LEAST_RADIUS 0.1
#define LARGEST_RADIUS 1.0
#define ROUNDING 1e-13
#define FLOOR 1e-3
#define LEAST_POSITIVE 2.2250738585072014e-308

// Where a fit stands, but for vectors and matrices.
struct Progress {
  // At the accepted point, and at the start of the EM iteration.
  double log_likelihood, before;
  double scaled_score, last_gain, radius;
  // s'd, d'Ad and |D d| of the step that leads to the trial point.
  double slope, curvature, length;
  // Size of a fall that ended the fit.
  double fall;
  int phase, part, iteration, attempts;
  int em, newton, passes, halt;
  int halt_iteration, concave, stationary, padding;
};

// How a decoded vector is read off the totals of a fit: its entry p is the sum of
// totals[terms[e]] for e from starts[p] to starts[p + 1].
struct Decoding {
  const double* totals;
  const u32* starts;
  const u32* terms;
  u64 outputs;
};

// What is the same for all launches; per fit: [fit][...].
struct Ascent {
  Decoding expectation, derivatives;
  const u32* active;
  const u32* active_count;
  Progress* progress;
  int* wanted;
  // [fit][size]: the accepted point, the next one to try, its step, D, the score.
  double* packed;
  double* trial;
  double* direction;
  double* scale;
  double* gradient;
  // [fit][size * size]
  double* hessian;
  // [fit][table_length], and what its entries are: a constant if the source is
  // negative, else coordinate `source`, or from `size` on the exponential of
  // coordinate `source - size`.
  double* tables;
  const int* sources;
  const double* constants;
  const double* low;
  const double* high;
  // Per expert: entries of its mean in the packed vector, their number, its
  // log-variance, its sums in the decoded expectation.
  const int* mean_offsets;
  const int* mean_lengths;
  const int* variance_offsets;
  const int* expert_offsets;
  // [slot][scratch_length], or none if shared memory has room for it.
  double* scratch;
  u64 scratch_length;
  double sample_size;
  double em_gain, newton_gain, newton_score;
  int size, experts, gates, table_length;
  int shared_variance, means_drive_gate;
  int with_em, em_iterations, em_measure;
  int with_newton, newton_iterations, stops_at_jumps;
};

// One fit, as its block sees it.
struct Fit {
  Progress now;
  const double* expectation;
  const double* derivatives;
  double *packed, *trial, *direction, *scale, *gradient, *hessian;
  // Scratch, not kept between launches: two matrices and vectors of order size.
  double *matrix, *basis;
  double *next_gradient, *target, *slope, *solved, *along, *values, *rotations;
  int* face;
  // One entry per thread.
  double* shares;
};

__device__ Fit fit_at(const Ascent& a, u32 fit, u32 slot, double* memory) {
  Fit f;
  const u64 n = a.size;
  f.now = a.progress[fit];
  f.expectation = a.expectation.totals + fit * a.expectation.outputs;
  f.derivatives = a.derivatives.totals + fit * a.derivatives.outputs;
  f.packed = a.packed + fit * n;
  f.trial = a.trial + fit * n;
  f.direction = a.direction + fit * n;
  f.scale = a.scale + fit * n;
  f.gradient = a.gradient + fit * n;
  f.hessian = a.hessian + fit * n * n;
  f.shares = memory;
  double* scratch = a.scratch_length > 0 ? a.scratch + slot * a.scratch_length
                                         : memory + blockDim.x;
  f.matrix = scratch;
  f.basis = f.matrix + n * n;
  f.next_gradient = f.basis + n * n;
  f.target = f.next_gradient + n;
  f.slope = f.target + n;
  f.solved = f.slope + n;
  f.along = f.solved + n;
  f.values = f.along + n;
  f.rotations = f.values + n;
  f.face = (int*)(f.rotations + n + 2);
  __syncthreads();
  return f;
}

__device__ __forceinline__ double decoded(const Decoding& d, const double* totals, int p) {
  double sum = 0;
  for (u32 e = d.starts[p]; e < d.starts[p + 1]; ++e) sum += totals[d.terms[e]];
  return sum;
}

__device__ void decode(const Decoding& d, const double* totals, int first, int count,
                       double* out) {
  for (int p = threadIdx.x; p < count; p += blockDim.x) out[p] = decoded(d, totals, first + p);
  __syncthreads();
}

__device__ void copy(const double* from, int count, double* to) {
  for (int i = threadIdx.x; i < count; i += blockDim.x) to[i] = from[i];
  __syncthreads();
}

// Moves the trial point into the box.
__device__ void project(const Ascent& a, Fit& f) {
  for (int j = threadIdx.x; j < a.size; j += blockDim.x) {
    f.trial[j] = clamped(f.trial[j], a.low[j], a.high[j]);
  }
  __syncthreads();
}

__device__ void halt(Fit& f, int reason, int iteration) {
  f.now.halt = reason;
  f.now.halt_iteration = iteration;
}

// Differences of log-likelihoods below this may be rounding.
__device__ __forceinline__ double rounding(const Fit& f) {
  return ROUNDING * (1 + fabs(f.now.log_likelihood));
}

// ---------------------------------------------------------------- expectation

// Cuts coordinates without freedom out of the system M x = v of those from `first` on:
// their x is 0 and the others' is that of the system without them. Twin of
// `solve_unpinned` of fit/em.rs.
__device__ void hold_pinned(const Ascent& a, int first, double* matrix, double* v, int n) {
  double largest = 0;
  for (int k = 0; k < n; ++k) largest = fmax(largest, fabs(matrix[k * n + k]));
  __syncthreads();
  for (int k = threadIdx.x; k < n * n; k += blockDim.x) {
    const int i = k / n, j = k % n;
    const bool held = a.low[first + i] == a.high[first + i] || a.low[first + j] == a.high[first + j];
    if (held) matrix[k] = i != j ? 0 : largest > 0 ? largest : 1;
    if (held && i == j) v[i] = 0;
  }
  __syncthreads();
}

__device__ bool propose_experts(const Ascent& a, Fit& f) {
  const Decoding& d = a.expectation;
  const double* totals = f.expectation;
  double all_squares = 0, mass = 0;
  for (int i = 0; i < a.experts; ++i) {
    const int m = a.mean_lengths[i], offset = a.mean_offsets[i], first = a.expert_offsets[i];
    const double responsibility = decoded(d, totals, first);
    mass += responsibility;
    if (responsibility == 0) continue;
    double* moment = f.slope;
    double* moved = f.along;
    decode(d, totals, first + 2, m, f.solved);
    decode(d, totals, first + 2 + m, m, moment);
    decode(d, totals, first + 2 + 2 * m, m * m, f.matrix);
    hold_pinned(a, offset, f.matrix, f.solved, m);
    if (!solve_ridged(f.matrix, f.basis, f.solved, m)) return false;
    for (int k = threadIdx.x; k < m; k += blockDim.x) {
      const int j = offset + k;
      moved[k] = clamped(f.trial[j] + f.solved[k], a.low[j], a.high[j]) - f.trial[j];
      f.trial[j] += moved[k];
    }
    __syncthreads();
    decode(d, totals, first + 2 + 2 * m + m * m, m * m, f.matrix);
    const double squares = decoded(d, totals, first + 1) - 2 * inner(moved, moment, m) +
                           bilinear(moved, f.matrix, moved, m);
    __syncthreads();
    all_squares += squares;
    if (!a.shared_variance && responsibility > 0 && squares > 0 && threadIdx.x == 0) {
      f.trial[a.variance_offsets[i]] = log(squares / responsibility);
    }
  }
  if (a.shared_variance && all_squares > 0 && threadIdx.x == 0) {
    f.trial[a.variance_offsets[0]] = log(all_squares / mass);
  }
  __syncthreads();
  return true;
}

__device__ void propose_gate(const Ascent& a, Fit& f) {
  const int g = a.gates, first = a.size - g, score = a.expert_offsets[a.experts];
  decode(a.expectation, f.expectation, score, g, f.solved);
  decode(a.expectation, f.expectation, score + g, g * g, f.matrix);
  hold_pinned(a, first, f.matrix, f.solved, g);
  // Without information (all experts but one extinct) the gate rests.
  if (!solve_ridged(f.matrix, f.basis, f.solved, g)) return;
  for (int k = threadIdx.x; k < g; k += blockDim.x) f.trial[first + k] += f.solved[k];
  __syncthreads();
}

// The unsafeguarded step from the accepted point, at which the totals are.
__device__ void propose(const Ascent& a, Fit& f) {
  const bool together = !a.means_drive_gate;
  copy(f.packed, a.size, f.trial);
  if (together || f.now.part == PART_EXPERTS) {
    if (!propose_experts(a, f)) {
      halt(f, HALT_SINGULAR, f.now.iteration);
      return;
    }
  }
  if (a.gates > 0 && (together || f.now.part == PART_GATE)) propose_gate(a, f);
  project(a, f);
  f.now.phase = AT_EXPECTATION_STEP;
  f.now.attempts = 0;
}

// Begins to climb by Newton's steps, or ends.
__device__ void expectation_ends(const Ascent& a, Fit& f, int reason) {
  if (!a.with_newton) {
    halt(f, reason, f.now.iteration);
    return;
  }
  copy(f.packed, a.size, f.trial);
  f.now.phase = AT_NEWTON_START;
}

__device__ void next_expectation(const Ascent& a, Fit& f) {
  if (f.now.iteration >= a.em_iterations) {
    expectation_ends(a, f, HALT_MAX_ITERATIONS);
    return;
  }
  f.now.iteration += 1;
  f.now.before = f.now.log_likelihood;
  f.now.part = PART_EXPERTS;
  propose(a, f);
}

__device__ void after_expectation_start(const Ascent& a, Fit& f) {
  f.now.log_likelihood = decoded(a.expectation, f.expectation, 0);
  if (!is_finite(f.now.log_likelihood)) {
    halt(f, HALT_NON_FINITE, 0);
    return;
  }
  next_expectation(a, f);
}

__device__ void after_expectation_step(const Ascent& a, Fit& f) {
  const double value = decoded(a.expectation, f.expectation, 0);
  const double fall = f.now.log_likelihood - value;
  if (fall <= rounding(f)) {
    f.now.log_likelihood = value;
    copy(f.trial, a.size, f.packed);
    if (a.means_drive_gate && a.gates > 0 && f.now.part == PART_EXPERTS) {
      f.now.part = PART_GATE;
      propose(a, f);
      return;
    }
    f.now.em += 1;
    double gain = value - f.now.before;
    if (a.em_measure == GAIN_RELATIVE) gain /= fabs(f.now.before);
    if (a.em_measure == GAIN_MEAN) gain /= a.sample_size;
    if (gain < a.em_gain) {
      expectation_ends(a, f, HALT_SMALL_GAIN);
    } else {
      next_expectation(a, f);
    }
    return;
  }
  f.now.attempts += 1;
  if (f.now.attempts < EM_HALVINGS) {
    for (int j = threadIdx.x; j < a.size; j += blockDim.x) {
      f.trial[j] = 0.5 * (f.trial[j] + f.packed[j]);
    }
    __syncthreads();
  } else if (is_finite(fall)) {
    f.now.fall = fall;
    expectation_ends(a, f, HALT_DECREASED);
  } else {
    halt(f, HALT_NON_FINITE, f.now.iteration);
  }
}

// ---------------------------------------------------------- the quadratic model
//
// A = -hessian. Coordinates that may move stand in `face`, in order.

// True if a step along `direction` would leave the box at coordinate j.
__device__ __forceinline__ bool blocks(const Ascent& a, const Fit& f, int j, double direction) {
  return a.low[j] == a.high[j] || (f.packed[j] <= a.low[j] && direction < 0) ||
         (f.packed[j] >= a.high[j] && direction > 0);
}

// Lists the free coordinates; returns their number.
__device__ int list_free(const Ascent& a, Fit& f) {
  int count = 0;
  for (int j = 0; j < a.size; ++j) {
    if (blocks(a, f, j, f.gradient[j])) continue;
    if (threadIdx.x == 0) f.face[count] = j;
    ++count;
  }
  __syncthreads();
  return count;
}

// `matrix` <- A on the face, divided by D on both sides if it is to be scaled.
__device__ void restrict_to_face(const Ascent& a, Fit& f, int count, bool scaled) {
  for (int e = threadIdx.x; e < count * count; e += blockDim.x) {
    const int i = f.face[e / count], j = f.face[e % count];
    const double value = -f.hessian[(u64)i * a.size + j];
    f.matrix[e] = scaled ? value / (f.scale[i] * f.scale[j]) : value;
  }
  __syncthreads();
}

// `matrix` <- the Cholesky factor of A on the face, if A is positive definite there
// up to rounding.
__device__ bool positive(const Ascent& a, Fit& f, int count) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    restrict_to_face(a, f, count, false);
    if (attempt == 1) {
      for (int i = threadIdx.x; i < count; i += blockDim.x) {
        f.matrix[i * (count + 1)] += ROUNDING * fabs(f.matrix[i * (count + 1)]);
      }
      __syncthreads();
    }
    if (cholesky(f.matrix, count)) return true;
  }
  return false;
}

// `values` and `basis` <- eigenvalues and eigenvectors of the scaled A on the face.
__device__ bool scaled_eigen(const Ascent& a, Fit& f, int count) {
  restrict_to_face(a, f, count, true);
  if (!all_finite(f.matrix, count * count, f.shares)) return false;
  eigen(f.matrix, f.basis, f.rotations, count, f.shares);
  for (int k = threadIdx.x; k < count; k += blockDim.x) f.values[k] = f.matrix[k * (count + 1)];
  __syncthreads();
  return true;
}

// `matrix` <- the factor of D V |L| V' D for the scaled A = V L V', sizes at least
// FLOOR.
__device__ bool substitute(const Ascent& a, Fit& f, int count) {
  if (!scaled_eigen(a, f, count)) return false;
  for (int e = threadIdx.x; e < count * count; e += blockDim.x) {
    const int i = e / count, j = e % count;
    double sum = 0;
    for (int k = 0; k < count; ++k) {
      const double size = fmax(fabs(f.values[k]), FLOOR);
      sum += f.basis[k * count + i] * size * f.basis[k * count + j];
    }
    f.matrix[e] = sum * (f.scale[f.face[i]] * f.scale[f.face[j]]);
  }
  __syncthreads();
  return cholesky(f.matrix, count);
}

// Makes D grow to what the accepted point asks for, and `matrix` the factor of A on
// the free coordinates or of what stands in its place.
__device__ bool factor_model(const Ascent& a, Fit& f, int count) {
  double largest = 0;
  for (int k = 0; k < count; ++k) {
    largest = fmax(largest, fabs(f.hessian[(u64)f.face[k] * (a.size + 1)]));
  }
  for (int k = threadIdx.x; k < count; k += blockDim.x) {
    const int j = f.face[k];
    const double own = sqrt(fmax(fabs(f.hessian[(u64)j * (a.size + 1)]), 1e-12 * largest));
    f.scale[j] = fmax(fmax(f.scale[j], own), LEAST_POSITIVE);
  }
  __syncthreads();
  f.now.concave = positive(a, f, count);
  return f.now.concave || substitute(a, f, count);
}

// |D d| on the face.
__device__ __forceinline__ double scaled_length(const Fit& f, const double* d, int count) {
  double sum = 0;
  for (int k = 0; k < count; ++k) {
    const double entry = d[k] * f.scale[f.face[k]];
    sum += entry * entry;
  }
  return sqrt(sum);
}

// Length of the step in the eigenvectors' coordinates, eigenvalues shifted so that
// the least is `shift`.
__device__ __forceinline__ double shifted_entry(const Fit& f, int k, double least,
                                                double shift) {
  return f.along[k] == 0 ? 0 : f.along[k] / (f.values[k] - least + shift);
}

__device__ __forceinline__ double shifted_length(const Fit& f, int count, double least,
                                                 double shift) {
  double sum = 0;
  for (int k = 0; k < count; ++k) {
    const double entry = shifted_entry(f, k, least, shift);
    sum += entry * entry;
  }
  return sqrt(sum);
}

// The shift, at least `low`, at which the step has length `radius`; bisection of
// the logarithm, from above.
__device__ double shift_to_radius(const Fit& f, int count, double least, double low,
                                  double radius) {
  double high = low + sqrt(inner(f.along, f.along, count)) / radius;
  const double smallest = 1e-16 * high;
  while (high > smallest && high - low > 1e-3 * high) {
    const double middle = sqrt(fmax(low, smallest) * high);
    if (shifted_length(f, count, least, middle) > radius) {
      low = middle;
    } else {
      high = middle;
    }
    if (middle <= smallest * 1.01) break;
  }
  return high;
}

// `solved` <- the maximum of slope'd - d'Ad / 2 in |D d| <= radius, on the face.
__device__ void in_ball(const Ascent& a, Fit& f, int count, double radius) {
  if (!scaled_eigen(a, f, count)) {
    for (int k = threadIdx.x; k < count; k += blockDim.x) f.solved[k] = 0;
    __syncthreads();
    return;
  }
  for (int k = threadIdx.x; k < count; k += blockDim.x) {
    double sum = 0;
    for (int i = 0; i < count; ++i) {
      sum += f.basis[k * count + i] * (f.slope[i] / f.scale[f.face[i]]);
    }
    f.along[k] = sum;
  }
  __syncthreads();
  int lowest = 0;
  for (int k = 1; k < count; ++k) {
    if (f.values[k] < f.values[lowest]) lowest = k;
  }
  const double least = f.values[lowest];
  double shift = fmax(least, 0.0), missing = 0;
  if (least <= 0 || shifted_length(f, count, least, shift) > radius) {
    shift = shift_to_radius(f, count, least, shift, radius);
    const double length = shifted_length(f, count, least, shift);
    // The hard case: no slope along the direction of least curvature.
    const double rest = radius * radius - length * length;
    if (least < 0 && rest > 1e-6 * radius * radius) missing = rest;
  }
  __syncthreads();
  double* whitened = f.rotations;
  double own = shifted_entry(f, lowest, least, shift);
  if (missing > 0) own = (own < 0 ? -1 : 1) * sqrt(own * own + missing);
  for (int k = threadIdx.x; k < count; k += blockDim.x) {
    whitened[k] = k == lowest ? own : shifted_entry(f, k, least, shift);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    double sum = 0;
    for (int k = 0; k < count; ++k) sum += f.basis[k * count + i] * whitened[k];
    f.solved[i] = sum / f.scale[f.face[i]];
  }
  __syncthreads();
}

// `target` <- the best step that differs from `direction` on the face only.
// `factored`: `matrix` holds the factor of A on the face.
__device__ void find_target(const Ascent& a, Fit& f, int count, bool factored) {
  copy(f.direction, a.size, f.target);
  for (int k = threadIdx.x; k < count; k += blockDim.x) f.target[f.face[k]] = 0;
  __syncthreads();
  for (int k = threadIdx.x; k < count; k += blockDim.x) {
    const int j = f.face[k];
    f.slope[k] = f.gradient[j] + inner(f.hessian + (u64)j * a.size, f.target, a.size);
  }
  double used = 0;
  for (int j = 0; j < a.size; ++j) {
    const double entry = f.target[j] * f.scale[j];
    used += entry * entry;
  }
  const double radius = sqrt(fmax(f.now.radius * f.now.radius - used, 0.0));
  __syncthreads();
  bool inside = false;
  if (f.now.concave && (factored || positive(a, f, count))) {
    copy(f.slope, count, f.solved);
    solve(f.matrix, count, f.solved);
    inside = scaled_length(f, f.solved, count) <= radius;
  }
  __syncthreads();
  if (!inside) in_ball(a, f, count, radius);
  for (int k = threadIdx.x; k < count; k += blockDim.x) f.target[f.face[k]] = f.solved[k];
  __syncthreads();
}

// How far coordinate j can move in the direction of `sign`.
__device__ __forceinline__ double room(const Ascent& a, const Fit& f, int j, double sign) {
  return (sign > 0 ? a.high[j] : a.low[j]) - f.packed[j];
}

// `direction` <- the step no longer than the radius; it stops at the first bound it
// meets, holds that coordinate and goes on among the others.
__device__ void find_step(const Ascent& a, Fit& f, bool factored) {
  int count = list_free(a, f);
  for (int j = threadIdx.x; j < a.size; j += blockDim.x) f.direction[j] = 0;
  __syncthreads();
  while (count > 0) {
    find_target(a, f, count, factored);
    factored = false;
    int first = -1;
    double least = INFINITE;
    for (int k = 0; k < count; ++k) {
      const int j = f.face[k];
      const double from = f.direction[j], to = f.target[j], end = room(a, f, j, to - from);
      if (!((to - end) * (to - from) > 0)) continue;
      const double fraction = (end - from) / (to - from);
      if (fraction < least) {
        least = fraction;
        first = k;
      }
    }
    const bool leaves = first >= 0 && least < 1;
    const double fraction = fmax(least, 0.0);
    const int hit = leaves ? f.face[first] : 0;
    __syncthreads();
    if (!leaves) {
      copy(f.target, a.size, f.direction);
      break;
    }
    for (int j = threadIdx.x; j < a.size; j += blockDim.x) {
      const double moved = f.direction[j] + (f.target[j] - f.direction[j]) * fraction;
      f.direction[j] = j == hit ? room(a, f, j, f.target[j]) : moved;
    }
    if (threadIdx.x == 0) {
      for (int k = first; k + 1 < count; ++k) f.face[k] = f.face[k + 1];
    }
    --count;
    __syncthreads();
  }
  f.now.slope = inner(f.gradient, f.direction, a.size);
  f.now.curvature = -bilinear(f.direction, f.hessian, f.direction, a.size);
  double square = 0;
  for (int j = 0; j < a.size; ++j) {
    const double entry = f.direction[j] * f.scale[j];
    square += entry * entry;
  }
  f.now.length = sqrt(square);
  __syncthreads();
}

// --------------------------------------------------------------------- Newton

// No step from the accepted point is left.
__device__ void no_step(Fit& f) {
  const int reason = !f.now.stationary ? HALT_NO_ASCENT
                     : f.now.concave   ? HALT_CONVERGED
                                       : HALT_SADDLE;
  halt(f, reason, f.now.iteration);
}

// True if the trial point is where the step leads, which it is moved to; a step that
// ends on a bound ends there exactly, so that it holds.
__device__ bool to_step_end(const Ascent& a, Fit& f) {
  double differs = 0;
  for (int j = threadIdx.x; j < a.size; j += blockDim.x) {
    const double end = f.packed[j] + f.direction[j];
    double value = clamped(end, a.low[j], a.high[j]);
    if (fabs(end - a.low[j]) <= 1e-12 * (1 + fabs(a.low[j]))) value = a.low[j];
    if (fabs(end - a.high[j]) <= 1e-12 * (1 + fabs(a.high[j]))) value = a.high[j];
    if (f.trial[j] != value) differs = 1;
    f.trial[j] = value;
  }
  return over_threads(differs, f.shares) == 0;
}

__device__ bool trial_is_accepted_point(const Ascent& a, Fit& f) {
  for (int j = 0; j < a.size; ++j) {
    if (f.trial[j] != f.packed[j]) return false;
  }
  return true;
}

__device__ void try_step(const Ascent& a, Fit& f) {
  to_step_end(a, f);
  f.now.phase = AT_NEWTON_STEP;
  if (trial_is_accepted_point(a, f)) no_step(f);
}

// One iteration at the accepted point, up to its first trial point.
__device__ void next_newton(const Ascent& a, Fit& f) {
  if (f.now.iteration >= a.newton_iterations) {
    halt(f, HALT_MAX_ITERATIONS, f.now.iteration);
    return;
  }
  f.now.iteration += 1;
  const int count = list_free(a, f);
  if (!factor_model(a, f, count)) {
    halt(f, HALT_SINGULAR, f.now.iteration);
    return;
  }
  for (int k = threadIdx.x; k < count; k += blockDim.x) f.solved[k] = f.gradient[f.face[k]];
  __syncthreads();
  if (count > 0) whiten(f.matrix, count, f.solved);
  f.now.scaled_score = sqrt(inner(f.solved, f.solved, count));
  f.now.stationary = f.now.scaled_score <= a.newton_score;
  if (f.now.stationary && f.now.concave && f.now.last_gain <= a.newton_gain) {
    halt(f, HALT_CONVERGED, f.now.iteration);
    return;
  }
  f.now.newton += 1;
  __syncthreads();
  if (!f.now.concave && !is_finite(f.now.radius)) {
    for (int k = threadIdx.x; k < count; k += blockDim.x) f.solved[k] = f.gradient[f.face[k]];
    __syncthreads();
    if (count > 0) solve(f.matrix, count, f.solved);
    const double unit = sqrt(a.sample_size);
    f.now.radius = clamped(scaled_length(f, f.solved, count), LEAST_RADIUS * unit,
                           LARGEST_RADIUS * unit);
    __syncthreads();
  }
  find_step(a, f, f.now.concave);
  f.now.attempts = 0;
  if (f.now.stationary && f.now.concave && !(rounding(f) > 0.1 * a.newton_gain)) {
    for (int j = threadIdx.x; j < a.size; j += blockDim.x) {
      f.trial[j] = clamped(f.packed[j] + f.direction[j], a.low[j], a.high[j]);
    }
    __syncthreads();
    f.now.phase = AT_LAST_STEP;
  } else {
    try_step(a, f);
  }
}

// Takes the derivatives at the trial point, which becomes the accepted one: the
// score is in `next_gradient`, the Hessian in `basis`.
__device__ void accept(const Ascent& a, Fit& f, double value) {
  copy(f.trial, a.size, f.packed);
  copy(f.next_gradient, a.size, f.gradient);
  copy(f.basis, a.size * a.size, f.hessian);
  f.now.log_likelihood = value;
}

__device__ void after_newton_start(const Ascent& a, Fit& f) {
  const double value = decoded(a.derivatives, f.derivatives, 0);
  decode(a.derivatives, f.derivatives, 1, a.size, f.next_gradient);
  decode(a.derivatives, f.derivatives, 1 + a.size, a.size * a.size, f.basis);
  accept(a, f, value);
  for (int j = threadIdx.x; j < a.size; j += blockDim.x) f.scale[j] = 0;
  f.now.iteration = 0;
  f.now.last_gain = INFINITE;
  f.now.radius = INFINITE;
  if (!is_finite(value) || !all_finite(f.gradient, a.size, f.shares)) {
    halt(f, HALT_NON_FINITE, 0);
    return;
  }
  next_newton(a, f);
}

// The gain in log-likelihood of the step. Where the difference of two sums drowns in
// their rounding, the integral of the slope by Hermite's rule.
__device__ double gain_of(const Ascent& a, const Fit& f, double value) {
  const double difference = value - f.now.log_likelihood;
  if (isnan(difference) || fabs(difference) > rounding(f)) return difference;
  const double slope = inner(f.next_gradient, f.direction, a.size);
  const double bend = bilinear(f.direction, f.basis, f.direction, a.size);
  return 0.5 * (f.now.slope + slope) + (-f.now.curvature - bend) / 12.0;
}

__device__ void after_newton_step(const Ascent& a, Fit& f) {
  const double value = decoded(a.derivatives, f.derivatives, 0);
  decode(a.derivatives, f.derivatives, 1, a.size, f.next_gradient);
  decode(a.derivatives, f.derivatives, 1 + a.size, a.size * a.size, f.basis);
  const double gain = gain_of(a, f, value);
  const double promise = f.now.slope - 0.5 * f.now.curvature;
  const bool finite = all_finite(f.next_gradient, a.size, f.shares);
  if (finite && gain >= SUFFICIENT * promise - fmin(rounding(f), 1e-9)) {
    const double kept = gain / promise;
    if (kept > 0.5) {
      f.now.radius = fmax(f.now.radius, 2 * f.now.length);
    } else if (kept < 0.25) {
      f.now.radius = 0.5 * f.now.length;
    }
    f.now.last_gain = gain;
    accept(a, f, value);
    next_newton(a, f);
    return;
  }
  f.now.attempts += 1;
  const bool jump = a.stops_at_jumps && promise <= LITTLE;
  if (jump || f.now.attempts >= NEWTON_HALVINGS) {
    no_step(f);
    return;
  }
  // The maximum of the parabola through both points.
  const double fraction = 0.5 * f.now.slope / (f.now.slope - gain);
  f.now.radius = f.now.length * (finite ? clamped(fraction, 0.1, 0.5) : 0.1);
  find_step(a, f, false);
  try_step(a, f);
}

__device__ void after_last_step(const Ascent& a, Fit& f) {
  const double value = decoded(a.derivatives, f.derivatives, 0);
  const double gained = value - f.now.log_likelihood;
  if (0 <= gained && gained <= a.newton_gain) {
    copy(f.trial, a.size, f.packed);
    f.now.log_likelihood = value;
    halt(f, HALT_CONVERGED, f.now.iteration);
    return;
  }
  // Else the step is one like any other; its end is mostly the same point.
  const bool known = to_step_end(a, f);
  f.now.phase = AT_NEWTON_STEP;
  if (trial_is_accepted_point(a, f)) {
    no_step(f);
  } else if (known) {
    after_newton_step(a, f);
  }
}

// -------------------------------------------------------------------- kernels

__device__ void write_table(const Ascent& a, const Fit& f, u32 fit) {
  double* table = a.tables + (u64)fit * a.table_length;
  for (int e = threadIdx.x; e < a.table_length; e += blockDim.x) {
    const int source = a.sources[e];
    table[e] = source < 0        ? a.constants[e]
               : source < a.size ? f.trial[source]
                                 : exp(f.trial[source - a.size]);
  }
}

// What the fit wants next; its state goes back to memory.
__device__ void store(const Ascent& a, const Fit& f, u32 fit) {
  __syncthreads();
  if (threadIdx.x == 0) {
    const bool expectation =
        f.now.phase == AT_EXPECTATION_START || f.now.phase == AT_EXPECTATION_STEP;
    a.progress[fit] = f.now;
    a.wanted[fit] = f.now.halt != HALT_NONE ? WANTS_NOTHING
                    : expectation           ? WANTS_EXPECTATION
                                            : WANTS_DERIVATIVES;
  }
  if (f.now.halt == HALT_NONE) write_table(a, f, fit);
}

// Puts every active fit at its start, which stands in `packed`.
KERNEL(begin, Ascent) {
  SHARED(memory);
  const u32 slot = blockIdx.x;
  if (slot >= *arguments.active_count) return;
  const u32 fit = arguments.active[slot];
  Fit f = fit_at(arguments, fit, slot, memory);
  copy(f.packed, arguments.size, f.trial);
  project(arguments, f);
  copy(f.trial, arguments.size, f.packed);
  f.now.log_likelihood = NOT_A_NUMBER;
  f.now.before = NOT_A_NUMBER;
  f.now.scaled_score = NOT_A_NUMBER;
  f.now.phase = arguments.with_em ? AT_EXPECTATION_START : AT_NEWTON_START;
  store(arguments, f, fit);
}

// Moves every active fit on, from the totals at its trial point to the next.
KERNEL(advance, Ascent) {
  SHARED(memory);
  const u32 slot = blockIdx.x;
  if (slot >= *arguments.active_count) return;
  const u32 fit = arguments.active[slot];
  if (arguments.wanted[fit] == WANTS_NOTHING) return;
  Fit f = fit_at(arguments, fit, slot, memory);
  f.now.passes += 1;
  if (f.now.phase == AT_EXPECTATION_START) {
    after_expectation_start(arguments, f);
  } else if (f.now.phase == AT_EXPECTATION_STEP) {
    after_expectation_step(arguments, f);
  } else if (f.now.phase == AT_NEWTON_START) {
    after_newton_start(arguments, f);
  } else if (f.now.phase == AT_NEWTON_STEP) {
    after_newton_step(arguments, f);
  } else {
    after_last_step(arguments, f);
  }
  store(arguments, f, fit);
}

struct Compaction {
  const u32* active;
  const u32* active_count;
  const int* wanted;
  u32* next_active;
  // Fits that want anything, an expectation, derivatives.
  u32* next_counts;
};

// Lists the fits that go on, in the order in which they stood. One block.
KERNEL(compact, Compaction) {
  SHARED(kept);
  double* expecting = kept + blockDim.x;
  const u32 count = *arguments.active_count;
  const u32 share = (count + blockDim.x - 1) / blockDim.x;
  const u32 reached = threadIdx.x * share, first = reached < count ? reached : count;
  const u32 last = first + share < count ? first + share : count;
  double mine = 0, expectations = 0;
  for (u32 slot = first; slot < last; ++slot) {
    const int wanted = arguments.wanted[arguments.active[slot]];
    mine += wanted != WANTS_NOTHING ? 1 : 0;
    expectations += wanted == WANTS_EXPECTATION ? 1 : 0;
  }
  kept[threadIdx.x] = mine;
  expecting[threadIdx.x] = expectations;
  __syncthreads();
  u32 position = 0, all = 0, all_expecting = 0;
  for (u32 t = 0; t < blockDim.x; ++t) {
    if (t < threadIdx.x) position += (u32)kept[t];
    all += (u32)kept[t];
    all_expecting += (u32)expecting[t];
  }
  for (u32 slot = first; slot < last; ++slot) {
    const u32 fit = arguments.active[slot];
    if (arguments.wanted[fit] != WANTS_NOTHING) arguments.next_active[position++] = fit;
  }
  if (threadIdx.x == 0) {
    arguments.next_counts[0] = all;
    arguments.next_counts[1] = all_expecting;
    arguments.next_counts[2] = all - all_expecting;
  }
}
