// What every kernel file begins with.
//
// A kernel has one argument, a structure by value, which the host writes as a
// `#[repr(C)]` twin; addresses are 64-bit numbers. KERNEL declares it: for a GPU as
// usual, for the emulator (`emulation.h`) with a function that runs a grid of it.

#ifndef SMOE_REAL
#define SMOE_REAL double
#endif

typedef SMOE_REAL real;
typedef unsigned int u32;
typedef unsigned long long u64;

#ifndef SMOE_EMULATED
#define KERNEL(name, Arguments) extern "C" __global__ void name(const Arguments arguments)
// Dynamic shared memory, one array of doubles for all.
#define SHARED(name) extern __shared__ double name[]
#define RESTRICT __restrict__
#endif

#define INFINITE (__longlong_as_double(0x7ff0000000000000LL))
#define NOT_A_NUMBER (__longlong_as_double(0x7ff8000000000000LL))
