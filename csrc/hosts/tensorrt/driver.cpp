#include "hosts/tensorrt/driver.h"

#include <dlfcn.h>

#include <mutex>
#include <utility>

#include "common/grid.h"
#include "hosts/tensorrt/driver_abi.h"
#include "hosts/tensorrt/entries.h"
#include "hosts/tensorrt/images.h"

namespace ek {
namespace hosts {
namespace {

using cuda::CudaError;

template <class Function>
void find(void* library, const char* name, Function& function) {
  function = reinterpret_cast<Function>(dlsym(library, name));
}

driver::Api load_api() {
  void* library = dlopen("libcuda.so.1", RTLD_NOW);  // never closed: what it runs may outlive us
  if (!library) throw CudaError(std::string("no CUDA driver: ") + dlerror());
  driver::Api api;
#define EK_FIND(member, function, result, arguments) \
  find(library, #function, api.member);              \
  if (!api.member) throw CudaError("the CUDA driver has no " #function);
  EK_DRIVER_FUNCTIONS(EK_FIND)
#undef EK_FIND
  find(library, "cuCtxGetId", api.context_id);
  return api;
}

const driver::Api& api() {
  static const driver::Api loaded = load_api();
  return loaded;
}

void check(driver::Result result, const std::string& what) {
  if (result == driver::kSuccess) return;
  const char* text = nullptr;
  if (api().error_string(result, &text) != driver::kSuccess || !text) text = "unknown error";
  throw CudaError(what + ": " + text + " (" + std::to_string(result) + ")");
}

// Whether an image is for another GPU or from a newer CUDA than the driver's.
bool not_for_this_device(driver::Result result) {
  return result == driver::kNoBinaryForGpu || result == driver::kUnsupportedPtx ||
         result == driver::kInvalidPtx;
}

CUmod_st* load_module() {
  CUmod_st* module = nullptr;
  for (int i = 0; i < kImageCount; ++i) {
    const driver::Result result = api().load_module(&module, kImages[i]);
    if (!not_for_this_device(result)) {
      check(result, "loading the device code");
      return module;
    }
  }
  throw CudaError("the library has no device code for this GPU and driver: build it for them");
}

Functions load_functions() {
  CUmod_st* module = load_module();  // belongs to the context, and ends with it
  Functions functions;
#define EK_GET(entry, ...) check(api().get_function(&functions[#entry], module, #entry), #entry);
  EK_DEVICE_ENTRIES(EK_GET)
#undef EK_GET
  return functions;
}

CUctx_st* current_context() {
  CUctx_st* context = nullptr;
  check(api().current_context(&context), "asking for the context");
  return context;
}

const Functions& functions_of_context() {
  using Context = std::pair<CUctx_st*, unsigned long long>;
  // Never destroyed: a stream may still be at work when the process ends.
  static auto& mutex = *new std::mutex;
  static auto& loaded = *new std::map<Context, Functions>;
  Context context{current_context(), 0};
  if (!context.first) throw CudaError("the calling thread has no CUDA context");
  if (api().context_id) check(api().context_id(context.first, &context.second), "asking for the context");
  const std::lock_guard<std::mutex> lock(mutex);
  auto at = loaded.find(context);
  if (at == loaded.end()) at = loaded.emplace(context, load_functions()).first;
  return at->second;
}

driver::Pointer pointer(const void* address) { return reinterpret_cast<driver::Pointer>(address); }

}  // namespace

void load_device_code() {
  if (current_context()) functions_of_context();
}

DriverDevice::DriverDevice(cuda::Stream stream) : stream_(stream), functions_(functions_of_context()) {}

void DriverDevice::launch(const Launch& launch) {
  const cuda::Grid grid = cuda::grid_of(launch.rows, launch.items);
  uint32_t rows = launch.rows, items = launch.items;
  void* arguments[] = {const_cast<void*>(launch.argument), &rows, &items};
  check(api().launch(functions_.at(launch.entry), grid.x, grid.y, 1, cuda::kRowThreads, cuda::kRowsPerBlock,
                     1, 0, stream_, arguments, nullptr),
        launch.entry);
}

void DriverDevice::fill(void* to, uint32_t bits, int64_t count) {
  check(api().fill(pointer(to), bits, static_cast<size_t>(count), stream_), "filling memory");
}

void DriverDevice::copy(void* to, const void* from, int64_t bytes) {
  check(api().copy(pointer(to), pointer(from), static_cast<size_t>(bytes), stream_), "copying memory");
}

void DriverDevice::upload(void* to, const void* from, int64_t bytes) {
  check(api().upload(pointer(to), from, static_cast<size_t>(bytes), stream_), "uploading a table");
}

}  // namespace hosts
}  // namespace ek
