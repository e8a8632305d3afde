// What a device can do at most: bytes, multiply-adds and exponentials per second.
//
// Every result is written, so that nothing can be left out.

// Independent chains of a thread: more than the latency of an operation.
#define CHAINS 8

struct LimitArguments {
  double* values;
  u64 count;
  u64 steps;
  double factor;
};

// a = b + factor * c: three arrays of `count`, one after another.
KERNEL(triad, LimitArguments) {
  const u64 count = arguments.count;
  double* a = arguments.values;
  const double* b = a + count;
  const double* c = b + count;
  const u64 threads = (u64)gridDim.x * blockDim.x;
  for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += threads) {
    a[i] = b[i] + arguments.factor * c[i];
  }
}

template <typename T>
__device__ __forceinline__ void multiply_add(const LimitArguments& arguments) {
  const u64 thread = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  const T factor = (T)arguments.factor, term = (T)1;
  T chains[CHAINS];
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) chains[c] = (T)(thread + c);
  for (u64 step = 0; step < arguments.steps; ++step) {
#pragma unroll
    for (int c = 0; c < CHAINS; ++c) chains[c] = chains[c] * factor + term;
  }
  T sum = (T)0;
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) sum += chains[c];
  arguments.values[thread] = (double)sum;
}

KERNEL(multiply_add_double, LimitArguments) { multiply_add<double>(arguments); }

KERNEL(multiply_add_single, LimitArguments) { multiply_add<float>(arguments); }

// e^x of arguments between -1 and 0, where most exponents of a pass lie.
KERNEL(exponentials, LimitArguments) {
  const u64 thread = (u64)blockIdx.x * blockDim.x + threadIdx.x;
  double chains[CHAINS];
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) chains[c] = arguments.factor * c;
  for (u64 step = 0; step < arguments.steps; ++step) {
#pragma unroll
    for (int c = 0; c < CHAINS; ++c) chains[c] = exp(-chains[c]);
  }
  double sum = 0.0;
#pragma unroll
  for (int c = 0; c < CHAINS; ++c) sum += chains[c];
  arguments.values[thread] = sum;
}
