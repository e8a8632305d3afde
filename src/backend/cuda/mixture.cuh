// The mixture at one row: twin of `model::gate`, `model::expert` and `model::score`,
// where the formulas are explained.

#define GATE_SOFTMAX 0
#define GATE_SIGMOID 1
#define GATE_CONSTANT 2
// Competition: 3 + 2 * response + (1 if normalised).
#define GATE_COMPETITION 3
#define RESPONSE_ABSOLUTE 0
#define RESPONSE_SOFTPLUS 1
#define RESPONSE_SQUARE 2

#define EXPERT_LINEAR 0
#define EXPERT_TANH 1
#define EXPERT_SIGMOID 2
#define EXPERT_RELU 3
#define EXPERT_GELU 4

struct Structure {
  double kappa;
  int experts;
  int dimension;
  int gate;
  int top_k;
  int by_slope;
  int padding;
};

struct Rows {
  const double* values;
  u64 capacity;
  int counted;
  int dimension;
};

// A program is compiled for one structure, or for all up to a size.
#ifdef SMOE_EXPERTS
#define MOST_EXPERTS SMOE_EXPERTS
#define MOST_DIMENSION (SMOE_DIMENSION > 0 ? SMOE_DIMENSION : 1)
#define EXPERTS(structure) SMOE_EXPERTS
#define DIMENSION(structure) SMOE_DIMENSION
#define GATE(structure) SMOE_GATE
#define TOP_K(structure) SMOE_TOP_K
#else
#define MOST_EXPERTS SMOE_MOST_EXPERTS
#define MOST_DIMENSION SMOE_MOST_DIMENSION
#define EXPERTS(structure) ((structure).experts)
#define DIMENSION(structure) ((structure).dimension)
#define GATE(structure) ((structure).gate)
#define TOP_K(structure) ((structure).top_k)
#endif

#define LOG_TWO_PI 1.8378770664093454836

// Entries of one expert in the table of numbers.
struct Entries {
  const double* slope;
  const double* gate_slope;
  real intercept, scale, variance, log_variance, gate_intercept;
  int kind;
};

__device__ __forceinline__ int entries_stride(int d) { return 2 * d + 6; }

__device__ __forceinline__ Entries entries_of(const double* table, int d, int i) {
  const double* own = table + i * entries_stride(d);
  Entries e;
  e.slope = own;
  e.intercept = (real)own[d];
  e.scale = (real)own[d + 1];
  e.variance = (real)own[d + 2];
  e.log_variance = (real)own[d + 3];
  e.gate_slope = own + d + 4;
  e.gate_intercept = (real)own[2 * d + 4];
  e.kind = (int)own[2 * d + 5];
  return e;
}

__device__ __forceinline__ real dot(const double* a, const real* x, int d) {
  real sum = (real)0;
  for (int j = 0; j < d; ++j) sum += (real)a[j] * x[j];
  return sum;
}

// A function of one number and its first two derivatives.
struct Jet {
  real value, first, second;
};

__device__ __forceinline__ Jet jet(real value, real first, real second) {
  Jet j;
  j.value = value;
  j.first = first;
  j.second = second;
  return j;
}

// log(1 + e^t)
__device__ __forceinline__ Jet softplus(real t) {
  real e = exp(-fabs(t));
  real inverse = (real)1 / ((real)1 + e);
  real logistic = (t >= (real)0 ? (real)1 : e) * inverse;
  return jet(fmax(t, (real)0) + log1p(e), logistic, e * inverse * inverse);
}

__device__ __forceinline__ Jet activation(int kind, real t) {
  if (kind == EXPERT_LINEAR) return jet(t, (real)1, (real)0);
  if (kind == EXPERT_TANH) {
    real h = tanh(t);
    real slope = (real)1 - h * h;
    return jet(h, slope, (real)-2 * h * slope);
  }
  if (kind == EXPERT_SIGMOID) {
    Jet s = softplus(t);
    return jet(s.first, s.second, s.second * ((real)1 - (real)2 * s.first));
  }
  if (kind == EXPERT_RELU) {
    return t > (real)0 ? jet(t, (real)1, (real)0) : jet((real)0, (real)0, (real)0);
  }
  // t Phi(t)
  real below = (real)0.5 * erfc(-t * (real)0.70710678118654752440);
  real at = exp((real)-0.5 * t * t) / (real)2.50662827463100050242;
  return jet(t * below, below + t * at, at * ((real)2 - t * t));
}

__device__ __forceinline__ Jet response(int kind, real t) {
  if (kind == RESPONSE_SOFTPLUS) return softplus(t);
  if (kind == RESPONSE_SQUARE) return jet((real)0.5 * t * t, t, (real)1);
  real sign = t > (real)0 ? (real)1 : t < (real)0 ? (real)-1 : (real)0;
  return jet(fabs(t), sign, (real)0);
}

// Least positive normal number.
#define LEAST (sizeof(real) == 8 ? (real)2.2250738585072014e-308 : (real)1.17549435e-38f)

// log of the response; -infinity with derivatives 0 where it is 0, or subnormal.
__device__ __forceinline__ Jet log_response(int kind, real t) {
  if (kind == RESPONSE_SOFTPLUS) {
    if (t < (real)-30) {
      real e = exp(t);
      return jet(t - (real)0.5 * e, (real)1 - (real)0.5 * e, (real)-0.5 * e);
    }
    Jet s = softplus(t);
    real slope = s.first / s.value;
    return jet(log(s.value), slope, s.second / s.value - slope * slope);
  }
  if (fabs(t) < LEAST) return jet((real)-INFINITE, (real)0, (real)0);
  if (kind == RESPONSE_ABSOLUTE) {
    return jet(log(fabs(t)), (real)1 / t, (real)-1 / (t * t));
  }
  return jet((real)2 * log(fabs(t)) - (real)0.69314718055994530942, (real)2 / t,
             (real)-2 / (t * t));
}

// The log-weight at its driver, without bias.
__device__ __forceinline__ Jet log_weight(int gate, real kappa, real t) {
  if (gate == GATE_SOFTMAX) return jet(t, (real)1, (real)0);
  if (gate == GATE_SIGMOID) {
    Jet s = softplus(-t);
    return jet(-s.value, s.first, -s.second);
  }
  if (gate == GATE_CONSTANT) return jet((real)0, (real)0, (real)0);
  int kind = (gate - GATE_COMPETITION) / 2;
  if ((gate - GATE_COMPETITION) % 2 == 1) return log_response(kind, t);
  Jet rho = response(kind, t);
  return jet(kappa * rho.value, kappa * rho.first, kappa * rho.second);
}

// True if the gate has scores of its own.
__device__ __forceinline__ bool is_router(int gate) {
  return gate == GATE_SOFTMAX || gate == GATE_SIGMOID;
}

// exp(t) for t <= 0; the largest term, t = 0, costs nothing.
__device__ __forceinline__ real exp_below(real t) { return t == (real)0 ? (real)1 : exp(t); }

// exp(terms - largest), divided by their sum; returns the logarithm of the sum of
// exp(terms).
__device__ __forceinline__ real normalised_exponentials(const real* terms, real largest, int count,
                                                        real* exponentials) {
  real total = (real)0;
  if (count == 2) {
    // Rows of a warp differ in which term is the largest: one exponential serves both.
    real smaller = exp(-fabs(terms[0] - terms[1]));
    bool first = terms[0] >= terms[1];
    exponentials[0] = first ? (real)1 : smaller;
    exponentials[1] = first ? smaller : (real)1;
    total = (real)1 + smaller;
  } else {
#pragma unroll
    for (int i = 0; i < count; ++i) {
      exponentials[i] = exp_below(terms[i] - largest);
      total += exponentials[i];
    }
  }
  real inverse = (real)1 / total;
#pragma unroll
  for (int i = 0; i < count; ++i) exponentials[i] *= inverse;
  return largest + log(total);
}

// Conditional law at one input; twin of `model::Conditional`.
struct Law {
  real mean[MOST_EXPERTS];
  // Weights and their logarithms; 0 and -infinity for dropped experts.
  real weight[MOST_EXPERTS];
  real log_weight[MOST_EXPERTS];
  // Activation at the expert's predictor, and the log-weight at its driver.
  Jet activation[MOST_EXPERTS];
  Jet gate[MOST_EXPERTS];
};

// Marks the k largest scores; ties go to the lower index, NaN is the smallest.
__device__ __forceinline__ void select_top_k(const real* scores, int count, int k, bool* kept) {
#pragma unroll
  for (int i = 0; i < count; ++i) kept[i] = false;
  for (int round = 0; round < k; ++round) {
    int best = -1;
    for (int i = 0; i < count; ++i) {
      if (kept[i]) continue;
      bool better = best < 0 || scores[i] > scores[best] ||
                    (isnan(scores[best]) && !isnan(scores[i]));
      if (better) best = i;
    }
    if (best >= 0) kept[best] = true;
  }
}

// The law at x, weights normalised.
__device__ __forceinline__ void law_at(const Structure& structure, const double* table,
                                       const real* x, Law& law) {
  const int count = EXPERTS(structure), d = DIMENSION(structure), gate = GATE(structure);
  real scores[MOST_EXPERTS];
  bool kept[MOST_EXPERTS];
#pragma unroll
  for (int i = 0; i < count; ++i) {
    Entries e = entries_of(table, d, i);
    law.activation[i] = activation(e.kind, dot(e.slope, x, d) + e.intercept);
    law.mean[i] = e.scale * law.activation[i].value;
    if (is_router(gate)) {
      real linear = dot(e.gate_slope, x, d);
      law.gate[i] = log_weight(gate, (real)structure.kappa, linear + e.gate_intercept);
      scores[i] = structure.by_slope ? linear : linear + e.gate_intercept;
    } else {
      law.gate[i] = log_weight(gate, (real)structure.kappa, law.mean[i]);
      law.gate[i].value += e.gate_intercept;
      int kind = (gate - GATE_COMPETITION) / 2;
      scores[i] = gate == GATE_CONSTANT        ? e.gate_intercept
                  : kind == RESPONSE_SOFTPLUS ? law.mean[i]
                                              : fabs(law.mean[i]);
    }
    kept[i] = true;
  }
  if (TOP_K(structure) < count) select_top_k(scores, count, TOP_K(structure), kept);
  real top = (real)-INFINITE;
#pragma unroll
  for (int i = 0; i < count; ++i) {
    law.log_weight[i] = kept[i] ? law.gate[i].value : (real)-INFINITE;
    top = fmax(top, law.log_weight[i]);
  }
  if (top == (real)-INFINITE) {
    // Every kept response is 0: the kept experts weigh exp(bias).
    for (int i = 0; i < count; ++i) {
      if (kept[i]) law.log_weight[i] = entries_of(table, d, i).gate_intercept;
      top = fmax(top, law.log_weight[i]);
    }
  }
  real log_total = normalised_exponentials(law.log_weight, top, count, law.weight);
#pragma unroll
  for (int i = 0; i < count; ++i) law.log_weight[i] -= log_total;
}
