// Libraries that call themselves CUDA's driver and runtime, as far as TVM's runtime needs them: the device's
// memory is the processor's, and device code is a library of kernels compiled for it (processor.h). EK_SEED
// gives the order of threads, and EK_EARLY lets copies come at once. No header of CUDA is needed: what of its
// types matters stands here.
#include <dlfcn.h>
#include <elf.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#ifdef EK_DRIVER
#include "common/grid.h"
#include "entry_table.h"
#endif

namespace {

constexpr int kDone = 0, kInvalidValue = 1, kNoMemory = 2, kInvalidImage = 200, kNoBinary = 209,
              kNotFound = 500;
constexpr int kNotSupported = 801, kComputeMajor = 75, kComputeMinor = 76;

struct Dim3 {
  unsigned x, y, z;
};
struct Config {
  Dim3 grid, block;
  unsigned shared;
  void* stream;
  void* attributes;
  unsigned count;
};
struct Launch {
  Dim3 grid, block;
  unsigned shared, seed;
  bool early;
};
using Entry = void (*)(const Launch*, void**);

unsigned number_of(const char* variable) {
  const char* text = std::getenv(variable);
  return text ? static_cast<unsigned>(std::atoi(text)) : 0;
}

}  // namespace

extern "C" {

#ifdef EK_DRIVER

// The kernels of edgekit's operators: any code that begins with "fake" stands for them.
static int operators_module;

int cuModuleLoadData(void** module, const void* image) {
  if (std::memcmp(image, "fake", 4) == 0) return *module = &operators_module, kDone;
  const auto* header = static_cast<const Elf64_Ehdr*>(image);
  if (std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_machine != EM_X86_64) return kNoBinary;
  const size_t bytes = header->e_shoff + size_t{header->e_shnum} * header->e_shentsize;
  char path[] = P_tmpdir "/edgekit-kernels-XXXXXX";
  const int file = mkstemp(path);
  const bool written = write(file, image, bytes) == static_cast<ssize_t>(bytes);
  close(file);
  *module = written ? dlopen(path, RTLD_NOW | RTLD_LOCAL) : nullptr;
  if (!*module) std::fprintf(stderr, "%s\n", dlerror());
  unlink(path);
  return *module ? kDone : kInvalidImage;
}
int cuModuleUnload(void*) { return kDone; }
int cuModuleGetFunction(void** function, void* module, const char* name) {
  if (module == &operators_module) {
    *function = const_cast<test::EntryRun*>(test::find_entry(name));
    return *function ? kDone : kNotFound;
  }
  char entry[512];
  std::snprintf(entry, sizeof entry, "%s_launch", name);
  *function = dlsym(module, entry);
  return *function ? kDone : kNotFound;
}
int cuFuncSetAttribute(void*, int, int) { return kDone; }
int cuLaunchKernelEx(const Config* config, void* function, void** arguments, void**) {
  const Launch launch{config->grid, config->block, config->shared, number_of("EK_SEED"),
                      number_of("EK_EARLY") != 0};
  if (config->block.x * config->block.y * config->block.z > 1024 || config->shared > 163 * 1024)
    return kInvalidValue;
  reinterpret_cast<Entry>(function)(&launch, arguments);
  return kDone;
}
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned, unsigned, unsigned, unsigned,
                   unsigned, void*, void** arguments, void**) {
  const auto* entry = static_cast<const test::EntryRun*>(function);
  alignas(16) char argument[4096];
  std::memcpy(argument, arguments[0], entry->bytes);
  entry->run(argument, *static_cast<uint32_t*>(arguments[1]), *static_cast<uint32_t*>(arguments[2]), grid_x,
             grid_y);
  return kDone;
}
int cuCtxGetCurrent(void** context) { return *context = &operators_module, kDone; }
int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t bytes, void*) {
  return std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), bytes), kDone;
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, void*) {
  return std::memcpy(reinterpret_cast<void*>(to), from, bytes), kDone;
}
int cuMemsetD32Async(unsigned long long to, unsigned value, size_t count, void*) {
  for (size_t i = 0; i < count; ++i) std::memcpy(reinterpret_cast<char*>(to) + 4 * i, &value, 4);
  return kDone;
}
int cuGetErrorName(int, const char** name) { return *name = "an error of the fake driver", kDone; }
int cuGetErrorString(int code, const char** text) { return cuGetErrorName(code, text); }
int cuDeviceGetName(char* name, int size, int) {
  std::snprintf(name, static_cast<size_t>(size), "a processor");
  return kDone;
}
// Of Hopper's copy engine, which these kernels do not use.
int cuTensorMapEncodeTiled() { return kNotSupported; }

#else

int cudaGetDeviceCount(int* count) { return *count = 1, kDone; }
int cudaGetDevice(int* device) { return *device = 0, kDone; }
int cudaSetDevice(int) { return kDone; }
int cudaDeviceGetAttribute(int* value, int kind, int) {
  *value = kind == kComputeMajor ? 8 : kind == kComputeMinor ? 7 : 32;
  return kDone;
}
int cudaGetDeviceProperties(void*, int) { return kNotSupported; }
int cudaMemGetInfo(size_t* left, size_t* all) { return *left = *all = size_t{1} << 32, kDone; }
// What is read before it is written shows: it is no number.
int cudaMalloc(void** memory, size_t bytes) {
  *memory = std::aligned_alloc(256, (bytes / 256 + 1) * 256);
  if (*memory) std::memset(*memory, 0xff, bytes);
  return *memory ? kDone : kNoMemory;
}
int cudaFree(void* memory) { return std::free(memory), kDone; }
int cudaMallocHost(void** memory, size_t bytes) { return cudaMalloc(memory, bytes); }
int cudaFreeHost(void* memory) { return cudaFree(memory); }
int cudaMemcpyAsync(void* to, const void* from, size_t bytes, int, void*) {
  return std::memcpy(to, from, bytes), kDone;
}
int cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, void*) {
  return std::memcpy(to, from, bytes), kDone;
}
int cudaGetLastError() { return kDone; }
int cudaPeekAtLastError() { return kDone; }
const char* cudaGetErrorName(int) { return "an error of the fake runtime"; }
const char* cudaGetErrorString(int) { return "an error of the fake runtime"; }
int cudaEventCreate(void** event) { return *event = nullptr, kDone; }
int cudaEventDestroy(void*) { return kDone; }
int cudaEventRecord(void*, void*) { return kDone; }
int cudaEventSynchronize(void*) { return kDone; }
int cudaEventElapsedTime(float* time, void*, void*) { return *time = 0, kDone; }
int cudaStreamCreate(void** stream) { return *stream = nullptr, kDone; }
int cudaStreamCreateWithFlags(void** stream, unsigned) { return cudaStreamCreate(stream); }
int cudaStreamDestroy(void*) { return kDone; }
int cudaStreamSynchronize(void*) { return kDone; }
int cudaStreamWaitEvent(void*, void*, unsigned) { return kDone; }
// No graph is recorded.
int cudaStreamBeginCapture(void*, int) { return kNotSupported; }
int cudaStreamEndCapture(void*, void**) { return kNotSupported; }
int cudaGraphInstantiate(void**, void*, unsigned long long) { return kNotSupported; }
int cudaGraphLaunch(void*, void*) { return kNotSupported; }
int cudaGraphDestroy(void*) { return kDone; }
int cudaGraphExecDestroy(void*) { return kDone; }

#endif
}
