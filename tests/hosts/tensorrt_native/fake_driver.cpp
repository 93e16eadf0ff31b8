// A library that calls itself CUDA's driver, and runs the kernels of the device code on the processor. It
// takes any device code that begins with "fake".
#include <cstdint>
#include <cstring>

#include "common/grid.h"
#include "entry_table.h"

struct CUctx_st {};
struct CUmod_st {};
struct CUstream_st;

namespace {

CUctx_st contexts[2];
CUctx_st* current = &contexts[0];
unsigned long long number = 1;
CUmod_st module;
int modules = 0, launches = 0;
CUstream_st* last_stream = nullptr;
constexpr int kInvalidValue = 1, kNoBinary = 209, kNotFound = 500;

void* at(unsigned long long pointer) { return reinterpret_cast<void*>(pointer); }

}  // namespace

extern "C" {

int cuGetErrorString(int code, const char** text) {
  *text = code == kNotFound ? "named symbol not found" : "some error";
  return 0;
}
int cuCtxGetCurrent(CUctx_st** context) {
  *context = current;
  return 0;
}
int cuCtxGetId(CUctx_st*, unsigned long long* id) {
  *id = number;
  return 0;
}
int cuModuleLoadData(CUmod_st** result, const void* image) {
  if (std::memcmp(image, "fake", 4) != 0) return kNoBinary;
  ++modules;
  *result = &module;
  return 0;
}
int cuModuleGetFunction(const void** function, CUmod_st* of, const char* name) {
  *function = test::find_entry(name);
  return of == &module && *function ? 0 : kNotFound;
}
int cuLaunchKernel(const void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                   unsigned block_y, unsigned block_z, unsigned shared, CUstream_st* stream, void** arguments,
                   void** extra) {
  if (grid_z != 1 || block_x != ek::cuda::kRowThreads || block_y != ek::cuda::kRowsPerBlock || block_z != 1 ||
      shared != 0 || extra)
    return kInvalidValue;
  const auto* entry = static_cast<const test::EntryRun*>(function);
  // The driver copies as many bytes as the kernel's argument has.
  alignas(16) char argument[4096];
  std::memcpy(argument, arguments[0], entry->bytes);
  entry->run(argument, *static_cast<uint32_t*>(arguments[1]), *static_cast<uint32_t*>(arguments[2]), grid_x,
             grid_y);
  ++launches;
  last_stream = stream;
  return 0;
}
int cuMemcpyDtoDAsync_v2(unsigned long long to, unsigned long long from, size_t bytes, CUstream_st*) {
  std::memcpy(at(to), at(from), bytes);
  return 0;
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, CUstream_st*) {
  std::memcpy(at(to), from, bytes);
  return 0;
}
int cuMemsetD32Async(unsigned long long to, unsigned value, size_t count, CUstream_st*) {
  for (size_t i = 0; i < count; ++i) std::memcpy(static_cast<char*>(at(to)) + 4 * i, &value, 4);
  return 0;
}

// For tests: contexts come and go. 0 is none; another number is another context, at the address of the first.
void fake_context(unsigned long long id) {
  current = id ? &contexts[0] : nullptr;
  number = id;
}
int fake_modules() { return modules; }
int fake_launches() { return launches; }
void* fake_stream() { return last_stream; }
}
