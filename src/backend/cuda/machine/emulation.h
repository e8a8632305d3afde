// Runs a kernel file on the processor: g++ compiles this header and then the same
// text that a GPU's compiler gets.
//
// Every CUDA thread is a fiber with a stack of its own. The fibers of a block take
// turns: one runs until it reaches a barrier or a shuffle, then the next. Blocks of
// one call run one after another; several host threads may call at once.
//
// What this shows: arithmetic, indices, arguments, the structure of barriers and
// shuffles. An error with its line are: a barrier that some threads of a block do not
// reach, or reach at another line; a shuffle that misses threads of its mask; a write
// outside shared memory. Shared memory is NaN at first, and beyond its ends. A
// missing barrier shows as a difference between the two orders of fibers.
//
// What it does not show: races that need threads to run at the same time, effects of
// a weak memory order, reads outside global memory, a compiler that contracts
// products and sums, a GPU's own elementary functions, and speed.

#pragma once
#define SMOE_EMULATED

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __constant__ static const
#define __launch_bounds__(...)
#define EMULATION_EXPORT extern "C" __attribute__((visibility("default")))
#define RESTRICT __restrict__
#define SHARED(name) double* const name = emulation::block->shared

// The kernel, and a function that runs the blocks [first, last) of a grid; it
// returns 0, or 1 with a message of at most 255 bytes.
#define KERNEL(name, Arguments)                                                             \
  static void name(const Arguments arguments);                                              \
  EMULATION_EXPORT int smoe_run_##name(unsigned first, unsigned last, unsigned blocks,            \
                                 unsigned threads, size_t shared_bytes, int reversed,       \
                                 const void* arguments, char* message) {                    \
    Arguments copy;                                                                         \
    memcpy(&copy, arguments, sizeof copy);                                                  \
    struct Body {                                                                           \
      static void run(const void* given) { name(*static_cast<const Arguments*>(given)); }   \
    };                                                                                      \
    return emulation::run(first, last, blocks, threads, shared_bytes, reversed, Body::run,  \
                          &copy, message);                                                  \
  }                                                                                         \
  EMULATION_EXPORT size_t smoe_arguments_##name() { return sizeof(Arguments); }                   \
  static void name(const Arguments arguments)

struct EmulatedIndex {
  unsigned x, y, z;
};

static thread_local EmulatedIndex threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

// ---- Fibers: a stack, and a switch from one to another ------------------------------

// The floating-point modes are the same in all fibers: only registers that a called
// function must keep are saved.
#if defined(__x86_64__)
extern "C" void smoe_switch(void** from, void* to) __asm__("smoe_switch");
__asm__(
    ".text\n.p2align 4\nsmoe_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n");

struct Context {
  void* stack;
};

inline void prepare(Context& context, char* base, size_t bytes, void (*entry)()) {
  void** top = reinterpret_cast<void**>(base + bytes);
  top[-1] = nullptr;  // return address of `entry`, which never returns
  top[-2] = reinterpret_cast<void*>(entry);
  for (int i = 3; i <= 8; ++i) top[-i] = nullptr;
  context.stack = top - 8;
}

inline void change(Context& from, Context& to) { smoe_switch(&from.stack, to.stack); }
#elif defined(__aarch64__)
extern "C" void smoe_switch(void** from, void* to) __asm__("smoe_switch");
__asm__(
    ".text\n.p2align 4\nsmoe_switch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n  ret\n");

struct Context {
  void* stack;
};

inline void prepare(Context& context, char* base, size_t bytes, void (*entry)()) {
  void** frame = reinterpret_cast<void**>(base + bytes) - 20;
  memset(frame, 0, 160);
  frame[11] = reinterpret_cast<void*>(entry);  // x30
  context.stack = frame;
}

inline void change(Context& from, Context& to) { smoe_switch(&from.stack, to.stack); }
#else
struct Context {
  ucontext_t registers;
};

inline void prepare(Context& context, char* base, size_t bytes, void (*entry)()) {
  getcontext(&context.registers);
  context.registers.uc_stack.ss_sp = base;
  context.registers.uc_stack.ss_size = bytes;
  context.registers.uc_link = nullptr;
  makecontext(&context.registers, entry, 0);
}

inline void change(Context& from, Context& to) {
  swapcontext(&from.registers, &to.registers);
}
#endif

// ---- A block ------------------------------------------------------------------------

const unsigned WARP = 32;
const unsigned MOST_THREADS = 1024;
const size_t STACK_BYTES = 256 << 10;
// Below each stack. Not a power of two, and stacks begin at different places of their
// pages: the tops in use then do not all compete for the same lines of a cache.
const size_t GUARD_BYTES = 68 << 10;
inline size_t colour(unsigned thread) { return thread % 16 * 256; }
// Doubles before and behind shared memory.
const size_t CANARIES = 512;
// NaN as double and as two floats; the canaries' differs.
const uint64_t NEVER_WRITTEN = 0x7ffc7ffc7ffc7ffcull;
const uint64_t CANARY = 0x7ffd7ffd7ffd7ffdull;

enum Status { READY, AT_BARRIER, AT_WARP, FINISHED };

struct Fiber {
  Context context;
  Status status;
  // Where it waits.
  const char* file;
  int line;
  // Warp: who takes part, what is given, whose value is taken.
  unsigned mask;
  unsigned source;
  uint64_t given, taken;
};

// What a host thread has: one block at a time.
struct Block {
  Context scheduler;
  Fiber* fibers;
  char* stacks;
  unsigned capacity;
  unsigned current;
  double* shared;
  uint64_t* arena;
  size_t arena_words;
  void (*body)(const void*);
  const void* arguments;

  ~Block() {
    if (stacks) munmap(stacks, capacity * (STACK_BYTES + GUARD_BYTES));
    free(fibers);
    free(arena);
  }
};

static thread_local Block* block;

inline bool reserve(Block& own, unsigned threads, size_t shared_words) {
  if (own.capacity < threads) {
    if (own.stacks) munmap(own.stacks, own.capacity * (STACK_BYTES + GUARD_BYTES));
    free(own.fibers);
    own.capacity = 0;
    own.fibers = static_cast<Fiber*>(calloc(threads, sizeof(Fiber)));
    const size_t bytes = threads * (STACK_BYTES + GUARD_BYTES);
    void* stacks = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANON | MAP_NORESERVE, -1, 0);
    own.stacks = stacks == MAP_FAILED ? nullptr : static_cast<char*>(stacks);
    if (!own.fibers || !own.stacks) return false;
    for (unsigned t = 0; t < threads; ++t) {
      if (mprotect(own.stacks + t * (STACK_BYTES + GUARD_BYTES), GUARD_BYTES, PROT_NONE)) return false;
    }
    own.capacity = threads;
  }
  const size_t words = shared_words + 2 * CANARIES;
  if (own.arena_words < words) {
    free(own.arena);
    own.arena_words = 0;
    own.arena = static_cast<uint64_t*>(malloc(words * sizeof(uint64_t)));
    if (!own.arena) return false;
    own.arena_words = words;
  }
  own.shared = reinterpret_cast<double*>(own.arena + CANARIES);
  return true;
}

inline void leave() {
  Block& own = *block;
  change(own.fibers[own.current].context, own.scheduler);
}

inline void entry() {
  block->body(block->arguments);
  block->fibers[block->current].status = FINISHED;
  leave();
}

inline __attribute__((noinline)) void barrier(const char* file, int line) {
  Fiber& own = block->fibers[block->current];
  own.status = AT_BARRIER;
  own.file = file;
  own.line = line;
  leave();
}

inline __attribute__((noinline)) uint64_t exchange(const char* file, int line, unsigned mask,
                                                   uint64_t value, unsigned source) {
  Fiber& own = block->fibers[block->current];
  own.status = AT_WARP;
  own.file = file;
  own.line = line;
  own.mask = mask;
  own.source = source;
  own.given = value;
  leave();
  return own.taken;
}

inline bool same_place(const Fiber& a, const Fiber& b) {
  return a.status == b.status && a.line == b.line && (a.file == b.file || !strcmp(a.file, b.file));
}

inline void describe(const Fiber& fiber, char* text, size_t bytes) {
  if (fiber.status == FINISHED) {
    snprintf(text, bytes, "has finished");
  } else {
    snprintf(text, bytes, "waits at %s:%d", fiber.file, fiber.line);
  }
}

inline int disagreement(const char* what, unsigned a, unsigned b, char* message) {
  char first[96], second[96];
  describe(block->fibers[a], first, sizeof first);
  describe(block->fibers[b], second, sizeof second);
  snprintf(message, 256, "%s: in block %u thread %u %s, thread %u %s", what, blockIdx.x, a, first,
           b, second);
  return 1;
}

// Nobody can go on: a shuffle misses threads, or else a barrier does.
inline int report_missing(unsigned threads, char* message) {
  const Fiber* fibers = block->fibers;
  for (unsigned t = 0; t < threads; ++t) {
    if (fibers[t].status != AT_WARP) continue;
    const unsigned begin = t / WARP * WARP;
    for (unsigned u = begin; u < begin + WARP && u < threads; ++u) {
      const bool takes_part = fibers[t].mask >> (u - begin) & 1;
      if (takes_part && !(same_place(fibers[t], fibers[u]) && fibers[t].mask == fibers[u].mask)) {
        return disagreement("divergent shuffle", t, u, message);
      }
    }
  }
  unsigned at = 0, other = 0;
  while (at + 1 < threads && fibers[at].status != AT_BARRIER) ++at;
  while (other + 1 < threads && same_place(fibers[at], fibers[other])) ++other;
  return disagreement("divergent barrier", at, other, message);
}

// Lets the threads of a warp go on whose whole mask has arrived. Sets `progress`.
inline int release_warp(unsigned begin, unsigned threads, bool& progress, char* message) {
  Fiber* fibers = block->fibers;
  const unsigned end = begin + WARP < threads ? begin + WARP : threads;
  for (unsigned t = begin; t < end; ++t) {
    if (fibers[t].status != AT_WARP) continue;
    const unsigned mask = fibers[t].mask;
    if (!(mask >> (t - begin) & 1)) {
      snprintf(message, 256, "a shuffle of a thread outside its own mask: block %u thread %u at %s:%d",
               blockIdx.x, t, fibers[t].file, fibers[t].line);
      return 1;
    }
    bool complete = true;
    for (unsigned u = begin; u < end; ++u) {
      if (mask >> (u - begin) & 1) {
        complete = complete && same_place(fibers[t], fibers[u]) && fibers[u].mask == mask;
      }
    }
    if (!complete) continue;
    for (unsigned u = begin; u < end; ++u) {
      if (!(mask >> (u - begin) & 1)) continue;
      const unsigned source = begin + fibers[u].source;
      if (source >= end || !(mask >> fibers[u].source & 1)) {
        snprintf(message, 256, "a shuffle from a thread that takes no part: block %u thread %u at %s:%d",
                 blockIdx.x, u, fibers[u].file, fibers[u].line);
        return 1;
      }
      fibers[u].taken = fibers[source].given;
    }
    for (unsigned u = begin; u < end; ++u) {
      if (mask >> (u - begin) & 1) fibers[u].status = READY;
    }
    progress = true;
  }
  return 0;
}

inline int run_block(unsigned threads, bool reversed, char* message) {
  Block& own = *block;
  Fiber* fibers = own.fibers;
  for (unsigned t = 0; t < threads; ++t) {
    char* stack = own.stacks + t * (STACK_BYTES + GUARD_BYTES) + GUARD_BYTES;
    prepare(fibers[t].context, stack, STACK_BYTES - colour(t), entry);
    fibers[t].status = READY;
  }
  for (;;) {
    for (unsigned i = 0; i < threads; ++i) {
      const unsigned t = reversed ? threads - 1 - i : i;
      if (fibers[t].status != READY) continue;
      own.current = t;
      threadIdx.x = t;
      change(own.scheduler, fibers[t].context);
    }
    unsigned waiting = 0, finished = 0;
    for (unsigned t = 0; t < threads; ++t) {
      waiting += fibers[t].status == AT_BARRIER;
      finished += fibers[t].status == FINISHED;
    }
    if (finished == threads) return 0;
    if (waiting == threads) {
      for (unsigned t = 1; t < threads; ++t) {
        if (!same_place(fibers[0], fibers[t])) {
          return disagreement("divergent barrier", 0, t, message);
        }
      }
      for (unsigned t = 0; t < threads; ++t) fibers[t].status = READY;
      continue;
    }
    bool progress = false;
    for (unsigned begin = 0; begin < threads; begin += WARP) {
      if (release_warp(begin, threads, progress, message)) return 1;
    }
    if (!progress) return report_missing(threads, message);
  }
}

inline int run(unsigned first, unsigned last, unsigned blocks, unsigned threads,
               size_t shared_bytes, int reversed, void (*body)(const void*), const void* arguments,
               char* message) {
  static thread_local Block own;
  block = &own;
  const size_t words = (shared_bytes + 7) / 8;
  if (threads < 1 || threads > MOST_THREADS) {
    snprintf(message, 256, "a block cannot have %u threads", threads);
    return 1;
  }
  if (!reserve(own, threads, words)) {
    snprintf(message, 256, "no memory for the stacks of %u threads", threads);
    return 1;
  }
  own.body = body;
  own.arguments = arguments;
  blockDim = {threads, 1, 1};
  gridDim = {blocks, 1, 1};
  threadIdx = {0, 0, 0};
  for (size_t i = 0; i < CANARIES; ++i) {
    own.arena[i] = own.arena[CANARIES + words + i] = CANARY;
  }
  for (unsigned b = first; b < last; ++b) {
    blockIdx = {b, 0, 0};
    for (size_t i = 0; i < words; ++i) own.arena[CANARIES + i] = NEVER_WRITTEN;
    if (run_block(threads, reversed != 0, message)) return 1;
    for (size_t i = 0; i < CANARIES; ++i) {
      if (own.arena[i] != CANARY || own.arena[CANARIES + words + i] != CANARY) {
        snprintf(message, 256, "block %u wrote outside its %zu bytes of shared memory", b,
                 shared_bytes);
        return 1;
      }
    }
  }
  return 0;
}

template <class T>
inline T shuffle(const char* file, int line, unsigned mask, T value, unsigned source) {
  static_assert(sizeof(T) <= 8, "a shuffle moves 4 or 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &value, sizeof value);
  bits = exchange(file, line, mask, bits, source);
  memcpy(&value, &bits, sizeof value);
  return value;
}

inline unsigned lane() { return block->current % WARP; }

inline unsigned lane_or_own(unsigned source) { return source < WARP ? source : lane(); }

}  // namespace emulation

#define __syncthreads() emulation::barrier(__FILE__, __LINE__)
#define __syncwarp(...) \
  ((void)emulation::exchange(__FILE__, __LINE__, emulation_mask(__VA_ARGS__), 0, emulation::lane()))
#define __shfl_sync(mask, value, source) \
  emulation::shuffle(__FILE__, __LINE__, (mask), (value), (unsigned)(source) % 32u)
// A source beyond the warp is the thread itself.
#define __shfl_down_sync(mask, value, by)                    \
  emulation::shuffle(__FILE__, __LINE__, (mask), (value),    \
                     emulation::lane_or_own(emulation::lane() + (unsigned)(by)))
#define __shfl_up_sync(mask, value, by)                      \
  emulation::shuffle(__FILE__, __LINE__, (mask), (value),    \
                     emulation::lane_or_own(emulation::lane() - (unsigned)(by)))
#define __shfl_xor_sync(mask, value, with)                   \
  emulation::shuffle(__FILE__, __LINE__, (mask), (value),    \
                     emulation::lane_or_own(emulation::lane() ^ (unsigned)(with)))

inline unsigned emulation_mask(unsigned mask = 0xffffffffu) { return mask; }

// ---- Functions that CUDA has and C++ has not ----------------------------------------

// Nothing is contracted here (-ffp-contract=off): these are the plain operations.
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __dsqrt_rn(double a) { return sqrt(a); }
inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __fsqrt_rn(float a) { return sqrtf(a); }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }

inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return (unsigned long long)((unsigned __int128)a * b >> 64);
}
inline int __popc(unsigned a) { return __builtin_popcount(a); }

template <class To, class From>
inline To emulation_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  memcpy(&to, &from, sizeof to);
  return to;
}
inline double __longlong_as_double(long long a) { return emulation_bits<double>(a); }
inline long long __double_as_longlong(double a) { return emulation_bits<long long>(a); }
inline float __int_as_float(int a) { return emulation_bits<float>(a); }
inline int __float_as_int(float a) { return emulation_bits<int>(a); }
inline float __uint_as_float(unsigned a) { return emulation_bits<float>(a); }
inline unsigned __float_as_uint(float a) { return emulation_bits<unsigned>(a); }

inline double rsqrt(double a) { return 1.0 / sqrt(a); }
inline float rsqrt(float a) { return 1.0f / sqrtf(a); }

// a less the even number and the half that are nearest: exact. Returns the quarter
// turns that were taken off.
inline int emulation_reduce(double& a) {
  a -= 2.0 * nearbyint(0.5 * a);
  double halves = nearbyint(2.0 * a);
  a -= 0.5 * halves;
  return (int)halves & 3;
}
inline double sinpi(double a) {
  int turn = emulation_reduce(a);
  double angle = 3.14159265358979323846 * a;
  double value = turn & 1 ? cos(angle) : sin(angle);
  return turn & 2 ? -value : value;
}
inline double cospi(double a) {
  int turn = emulation_reduce(a);
  double angle = 3.14159265358979323846 * a;
  double value = turn & 1 ? -sin(angle) : cos(angle);
  return turn & 2 ? -value : value;
}
inline float sinpi(float a) { return (float)sinpi((double)a); }
inline float cospi(float a) { return (float)cospi((double)a); }

// Of a number and a NaN the number, as CUDA.
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, float b) { return fmin(a, (double)b); }
inline double max(double a, float b) { return fmax(a, (double)b); }
inline double min(float a, double b) { return fmin((double)a, b); }
inline double max(float a, double b) { return fmax((double)a, b); }
#define EMULATION_ORDER(T)                          \
  inline T min(T a, T b) { return b < a ? b : a; }  \
  inline T max(T a, T b) { return a < b ? b : a; }
EMULATION_ORDER(int)
EMULATION_ORDER(unsigned)
EMULATION_ORDER(long)
EMULATION_ORDER(unsigned long)
EMULATION_ORDER(long long)
EMULATION_ORDER(unsigned long long)
#undef EMULATION_ORDER
