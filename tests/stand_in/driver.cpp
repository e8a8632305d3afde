// Stands in for NVIDIA's driver where there is none: kernels run on the processor, by
// the engine's own emulation header, so that the calls of a real driver are made.
//
// It is as strict and as lazy as a driver may be: each call needs a context that is
// current in its thread, and everything on a stream happens when it is waited for.
// STAND_IN_... variables choose what it pretends to be.

#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace {
enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3,
       INVALID_DEVICE = 101, INVALID_CONTEXT = 201, INVALID_IMAGE = 200, NOT_FOUND = 500,
       ILLEGAL_ADDRESS = 700 };

struct Kernel {
  void* run;
  size_t arguments;
  int shared;
};

std::recursive_mutex lock;
bool initialised;
int retained;  // how often the context is held
int failed;  // an error that stays, as of a kernel that failed
thread_local void* current;
int context, stream;
std::vector<std::function<int()>> waiting;
std::map<uint64_t, size_t> memory;
size_t used;
std::map<std::string, Kernel> kernels;

long setting(const char* name, long otherwise) {
  const char* value = getenv(name);
  return value ? atol(value) : otherwise;
}

size_t total() { return (size_t)setting("STAND_IN_MEMORY", 1l << 30); }

int usable() {
  if (!initialised) return NOT_INITIALIZED;
  if (!retained || current != &context) return INVALID_CONTEXT;
  return failed;
}

bool inside(uint64_t address, size_t bytes) {
  auto after = memory.upper_bound(address);
  if (after == memory.begin()) return false;
  --after;
  return address - after->first + bytes <= after->second;
}

int finish() {
  auto work = std::move(waiting);
  waiting.clear();
  for (auto& step : work) {
    if (failed) break;
    failed = step();
  }
  return failed;
}

int later(std::function<int()> step) {
  if (int code = usable()) return code;
  waiting.push_back(std::move(step));
  return SUCCESS;
}
}  // namespace

#define LOCKED std::lock_guard<std::recursive_mutex> guard(lock)
#define USABLE                        \
  LOCKED;                             \
  if (int code = usable()) return code

extern "C" {
int cuDriverGetVersion(int* version) {
  *version = (int)setting("STAND_IN_VERSION", 13000);
  return SUCCESS;
}
int cuInit(unsigned) {
  initialised = true;
  return SUCCESS;
}
int cuGetErrorString(int code, const char** text) {
  switch (code) {
    case OUT_OF_MEMORY: *text = "out of memory"; break;
    case INVALID_CONTEXT: *text = "invalid device context"; break;
    case ILLEGAL_ADDRESS: *text = "an illegal memory access was encountered"; break;
    case INVALID_IMAGE: *text = "device kernel image is invalid"; break;
    default: *text = "another error";
  }
  return SUCCESS;
}
int cuDeviceGetCount(int* count) {
  *count = (int)setting("STAND_IN_COUNT", 1);
  return initialised ? SUCCESS : NOT_INITIALIZED;
}
int cuDeviceGet(int* device, int ordinal) {
  *device = ordinal + 7;
  return ordinal < setting("STAND_IN_COUNT", 1) ? SUCCESS : INVALID_DEVICE;
}
int cuDeviceGetName(char* name, int bytes, int) {
  snprintf(name, (size_t)bytes, "Stand-in GPU");
  return SUCCESS;
}
int cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = total();
  return SUCCESS;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  if (device < 7) return INVALID_DEVICE;
  const int capability = (int)setting("STAND_IN_CAPABILITY", 90);
  switch (attribute) {
    case 75: *value = capability / 10; return SUCCESS;
    case 76: *value = capability % 10; return SUCCESS;
    case 97: *value = 64 << 10; return SUCCESS;
    default: return INVALID_VALUE;
  }
}
int cuDevicePrimaryCtxRetain(void** given, int device) {
  LOCKED;
  if (!initialised || device < 7) return INVALID_DEVICE;
  ++retained;
  *given = &context;
  return SUCCESS;
}
int cuDevicePrimaryCtxRelease_v2(int) {
  LOCKED;
  if (--retained > 0) return SUCCESS;
  return memory.empty() && waiting.empty() ? SUCCESS : INVALID_CONTEXT;
}
int cuCtxSetCurrent(void* given) {
  current = given;
  return SUCCESS;
}
int cuStreamCreate(void** given, unsigned flags) {
  USABLE;
  *given = &stream;
  return flags == 1 ? SUCCESS : INVALID_VALUE;
}
int cuStreamDestroy_v2(void* given) {
  USABLE;
  return given == &stream ? SUCCESS : INVALID_VALUE;
}
int cuStreamSynchronize(void* given) {
  USABLE;
  return given == &stream ? finish() : INVALID_VALUE;
}
int cuMemGetInfo_v2(size_t* free, size_t* all) {
  USABLE;
  *all = total();
  *free = *all - used;
  return SUCCESS;
}
int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  USABLE;
  if (bytes == 0) return INVALID_VALUE;
  if (bytes > total() - used) return OUT_OF_MEMORY;
  void* start = aligned_alloc(256, (bytes + 255) / 256 * 256);
  memset(start, 0xff, bytes);
  *address = (uint64_t)start;
  memory[*address] = bytes;
  used += bytes;
  return SUCCESS;
}
int cuMemFree_v2(uint64_t address) {
  USABLE;
  finish();
  auto found = memory.find(address);
  if (found == memory.end()) return INVALID_VALUE;
  used -= found->second;
  memset((void*)address, 0xff, found->second);
  free((void*)address);
  memory.erase(found);
  return failed;
}
int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void*) {
  LOCKED;
  return later([=] {
    if (!inside(to, bytes)) return (int)ILLEGAL_ADDRESS;
    memcpy((void*)to, from, bytes);
    return (int)SUCCESS;
  });
}
int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void*) {
  LOCKED;
  return later([=] {
    if (!inside(from, bytes)) return (int)ILLEGAL_ADDRESS;
    memcpy(to, (void*)from, bytes);
    return (int)SUCCESS;
  });
}
int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void*) {
  LOCKED;
  return later([=] {
    if (!inside(to, bytes)) return (int)ILLEGAL_ADDRESS;
    memset((void*)to, value, bytes);
    return (int)SUCCESS;
  });
}
int cuModuleLoadData(void** module, const void* image) {
  USABLE;
  static int count = 0;
  const char* text = (const char*)image;
  // Machine code for this very device, or PTX for an older one.
  char own[64];
  snprintf(own, sizeof own, "--gpu-architecture=sm_%ld\n", setting("STAND_IN_CAPABILITY", 90));
  if (!strstr(text, own) && !strstr(text, "--gpu-architecture=compute_")) return INVALID_IMAGE;
  const std::string base = std::string(getenv("STAND_IN_FOLDER")) + "/module" +
                           std::to_string(getpid()) + "-" + std::to_string(count++);
  std::ofstream(base + ".cpp") << "#include \"" << getenv("STAND_IN_HEADER") << "\"\n" << text;
  const std::string command = "g++ -std=c++17 -O2 -fPIC -shared -ffp-contract=off -w -o " + base +
                              ".so " + base + ".cpp";
  if (system(command.c_str()) != 0) return INVALID_IMAGE;
  *module = dlopen((base + ".so").c_str(), RTLD_NOW | RTLD_LOCAL);
  return *module ? SUCCESS : INVALID_IMAGE;
}
int cuModuleGetFunction(Kernel** kernel, void* module, const char* name) {
  USABLE;
  void* run = dlsym(module, (std::string("smoe_run_") + name).c_str());
  void* bytes = dlsym(module, (std::string("smoe_arguments_") + name).c_str());
  if (!run || !bytes) return NOT_FOUND;
  *kernel = new Kernel{run, ((size_t(*)())bytes)(), 48 << 10};
  return SUCCESS;
}
int cuFuncSetAttribute(Kernel* kernel, int attribute, int value) {
  USABLE;
  if (attribute != 8 || value > 64 << 10) return INVALID_VALUE;
  kernel->shared = value;
  return SUCCESS;
}
int cuLaunchKernel(Kernel* kernel, unsigned blocks, unsigned y, unsigned z, unsigned threads,
                   unsigned ty, unsigned tz, unsigned shared, void* on, void** arguments,
                   void** extra) {
  LOCKED;
  if (y != 1 || z != 1 || ty != 1 || tz != 1 || on != &stream || extra) return INVALID_VALUE;
  if (blocks < 1 || threads < 1 || threads > 1024 || (int)shared > kernel->shared) {
    return INVALID_VALUE;
  }
  // Copied now, as drivers do; used when the stream is waited for.
  const char* given = (const char*)arguments[0];
  std::vector<char> copy(given, given + kernel->arguments);
  return later([=] {
    if (getenv("STAND_IN_FAILS")) return (int)ILLEGAL_ADDRESS;
    typedef int (*Run)(unsigned, unsigned, unsigned, unsigned, size_t, int, const void*, char*);
    char message[256];
    if (((Run)kernel->run)(0, blocks, blocks, threads, shared, 0, copy.data(), message) == 0) {
      return (int)SUCCESS;
    }
    fprintf(stderr, "%s\n", message);
    return (int)ILLEGAL_ADDRESS;
  });
}
}
