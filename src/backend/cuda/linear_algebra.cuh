// Small dense algebra by one block: twin of `num::dense`.
//
// A matrix of order n has n * n entries, row by row. Threads share the entries of
// vectors and matrices; a number on which the way depends is computed by every
// thread, from the same entries in the same order, so that all take the same way.
// Every function begins and ends with its arguments visible to all threads.

// As Rust's f64::clamp: not a number stays so.
__device__ __forceinline__ double clamped(double value, double low, double high) {
  return value < low ? low : value > high ? high : value;
}

__device__ __forceinline__ bool is_finite(double value) { return fabs(value) < INFINITE; }

// a'b
__device__ __forceinline__ double inner(const double* a, const double* b, int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

// a'Mb
__device__ __forceinline__ double bilinear(const double* a, const double* m, const double* b,
                                           int n) {
  double sum = 0;
  for (int i = 0; i < n; ++i) sum += a[i] * inner(m + i * n, b, n);
  return sum;
}

// The sum of what the threads bring, in their order; `shares`: one entry per thread.
__device__ double over_threads(double own, double* shares) {
  __syncthreads();
  shares[threadIdx.x] = own;
  __syncthreads();
  double sum = 0;
  for (int t = 0; t < (int)blockDim.x; ++t) sum += shares[t];
  return sum;
}

// True if all entries are finite.
__device__ bool all_finite(const double* values, int count, double* shares) {
  double wrong = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) wrong += is_finite(values[i]) ? 0 : 1;
  return over_threads(wrong, shares) == 0;
}

// Overwrites the upper triangle of a symmetric matrix with the Cholesky factor U,
// U'U = A; false if it is not positive definite or not finite (an entry that is
// not shows in a pivot).
__device__ bool cholesky(double* a, int n) {
  for (int j = 0; j < n; ++j) {
    double pivot = a[j * n + j];
    for (int k = 0; k < j; ++k) pivot -= a[k * n + j] * a[k * n + j];
    if (!(pivot > 0 && pivot < INFINITE)) {
      __syncthreads();
      return false;
    }
    const double root = sqrt(pivot);
    for (int i = j + 1 + threadIdx.x; i < n; i += blockDim.x) {
      double sum = a[j * n + i];
      for (int k = 0; k < j; ++k) sum -= a[k * n + i] * a[k * n + j];
      a[j * n + i] = sum / root;
    }
    __syncthreads();
    if (threadIdx.x == 0) a[j * n + j] = root;
    __syncthreads();
  }
  return true;
}

// v <- U'^-1 v: its squared length is v' A^-1 v.
__device__ void whiten(const double* u, int n, double* v) {
  for (int j = 0; j < n; ++j) {
    const double solved = v[j] / u[j * n + j];
    for (int i = j + 1 + threadIdx.x; i < n; i += blockDim.x) v[i] -= u[j * n + i] * solved;
    __syncthreads();
  }
  for (int i = threadIdx.x; i < n; i += blockDim.x) v[i] /= u[i * n + i];
  __syncthreads();
}

// v <- A^-1 v for A = U'U.
__device__ void solve(const double* u, int n, double* v) {
  whiten(u, n, v);
  for (int j = n - 1; j >= 0; --j) {
    const double solved = v[j] / u[j * n + j];
    for (int i = threadIdx.x; i < j; i += blockDim.x) v[i] -= u[i * n + j] * solved;
    __syncthreads();
  }
  for (int i = threadIdx.x; i < n; i += blockDim.x) v[i] /= u[i * n + i];
  __syncthreads();
}

// `factor` <- the Cholesky factor of `matrix` with `ridge` on its diagonal.
__device__ bool ridged(const double* matrix, double ridge, double* factor, int n) {
  for (int e = threadIdx.x; e < n * n; e += blockDim.x) {
    factor[e] = matrix[e] + (e % (n + 1) == 0 ? ridge : 0);
  }
  __syncthreads();
  return cholesky(factor, n);
}

// v <- A^-1 v with the least ridge that helps; false if none up to the largest
// diagonal entry does. Twin of `num::dense::solve_ridged`.
__device__ bool solve_ridged(const double* matrix, double* factor, double* v, int n) {
  const double least = 2.2250738585072014e-308;
  if (!ridged(matrix, 0, factor, n)) {
    double scale = 0;
    for (int i = 0; i < n; ++i) scale = fmax(scale, fabs(matrix[i * (n + 1)]));
    if (!is_finite(scale)) return false;
    double ridge = 1e-12 * fmax(scale, least);
    while (ridge <= scale && !ridged(matrix, ridge, factor, n)) ridge *= 10;
    if (!(ridge <= scale)) return false;
  }
  solve(factor, n, v);
  return true;
}

// Pair k of round r when n coordinates meet, each other once in n - 1 rounds (n - 1
// made odd): the circle method. False if one of the two is the bye.
__device__ __forceinline__ bool paired(int n, int round, int k, int* p, int* q) {
  const int players = n + n % 2, circle = players - 1;
  const int a = k == 0 ? players - 1 : (round + k) % circle;
  const int b = (round + circle - k) % circle;
  *p = a < b ? a : b;
  *q = a < b ? b : a;
  return *q < n;
}

// Eigenvalues of a symmetric matrix, finite, by cyclic Jacobi rotations (Golub and
// Van Loan 2013, 8.5): they end on its diagonal, in no order; row k of `vectors` is
// the eigenvector of the k-th. `rotations`: n + 1 entries.
__device__ void eigen(double* a, double* vectors, double* rotations, int n, double* shares) {
  const int pairs = (n + 1) / 2, rounds = 2 * pairs - 1, most_sweeps = 40;
  for (int e = threadIdx.x; e < n * n; e += blockDim.x) vectors[e] = e % (n + 1) == 0 ? 1 : 0;
  for (int sweep = 0; sweep < most_sweeps; ++sweep) {
    double outside = 0, inside = 0;
    for (int e = threadIdx.x; e < n * n; e += blockDim.x) {
      const double square = a[e] * a[e];
      if (e % (n + 1) == 0) {
        inside += square;
      } else {
        outside += square;
      }
    }
    outside = over_threads(outside, shares);
    inside = over_threads(inside, shares);
    if (!(outside > 1e-34 * inside)) break;
    for (int round = 0; round < rounds; ++round) {
      // Rotations of one round touch different coordinates: all go on at once.
      for (int k = threadIdx.x; k < pairs; k += blockDim.x) {
        int p, q;
        double cosine = 1, sine = 0;
        if (paired(n, round, k, &p, &q) && a[p * n + q] != 0) {
          const double cot = (a[q * n + q] - a[p * n + p]) / (2 * a[p * n + q]);
          const double size = 1 / (fabs(cot) + sqrt(cot * cot + 1));
          const double tangent = cot < 0 ? -size : size;
          cosine = 1 / sqrt(tangent * tangent + 1);
          sine = tangent * cosine;
        }
        rotations[2 * k] = cosine;
        rotations[2 * k + 1] = sine;
      }
      __syncthreads();
      for (int item = threadIdx.x; item < pairs * n; item += blockDim.x) {
        int p, q;
        const int k = item / n, j = item % n;
        if (!paired(n, round, k, &p, &q)) continue;
        const double c = rotations[2 * k], s = rotations[2 * k + 1];
        const double ap = a[p * n + j], aq = a[q * n + j];
        a[p * n + j] = c * ap - s * aq;
        a[q * n + j] = s * ap + c * aq;
        const double vp = vectors[p * n + j], vq = vectors[q * n + j];
        vectors[p * n + j] = c * vp - s * vq;
        vectors[q * n + j] = s * vp + c * vq;
      }
      __syncthreads();
      for (int item = threadIdx.x; item < pairs * n; item += blockDim.x) {
        int p, q;
        const int k = item / n, i = item % n;
        if (!paired(n, round, k, &p, &q)) continue;
        const double c = rotations[2 * k], s = rotations[2 * k + 1];
        const double ap = a[i * n + p], aq = a[i * n + q];
        a[i * n + p] = i == q ? 0 : c * ap - s * aq;
        a[i * n + q] = i == p ? 0 : s * ap + c * aq;
      }
      __syncthreads();
    }
  }
  __syncthreads();
}
