// The operators in TVM on a GPU: functions of its C interface, which compiled networks are linked with.
// Tensors are read and written in place, by kernels that the CUDA driver launches on TVM's stream, in its
// order.
#include <tvm/ffi/extra/c_env_api.h>

#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>

#include "hosts/tensorrt/driver.h"
#include "hosts/tensorrt/routine.h"
#include "hosts/tvm_arguments.h"

namespace {

// tvm/runtime/c_backend_api.h says the same, where the rest of TVM is installed.
using AllocateFn = void* (*)(int device_type, int device, uint64_t bytes, int code_hint, int bits_hint);
using FreeFn = int (*)(int device_type, int device, void* memory);

}  // namespace

// Set by the loader of TVM's runtime, as the one of tvm.cpp.
extern "C" {
__attribute__((weak, visibility("default"))) AllocateFn __TVMBackendAllocWorkspace = nullptr;
__attribute__((weak, visibility("default"))) FreeFn __TVMBackendFreeWorkspace = nullptr;
}

namespace ek {
namespace tvm {
namespace {

// Memory of TVM's for one call. What comes later in the stream may have it next.
class Workspace {
 public:
  Workspace(int device, int64_t bytes) : device_(device) {
    if (bytes == 0) return;
    if (__TVMBackendAllocWorkspace && __TVMBackendFreeWorkspace)
      data_ = __TVMBackendAllocWorkspace(kDLCUDA, device, static_cast<uint64_t>(bytes), kDLUInt, 8);
    if (!data_) throw std::runtime_error("TVM has no memory on the GPU for an operator of edgekit");
  }
  ~Workspace() {
    if (data_) __TVMBackendFreeWorkspace(kDLCUDA, device_, data_);
  }
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  void* data() const { return data_; }

 private:
  int device_;
  void* data_ = nullptr;
};

std::string key_of(const Operator& op, const std::vector<Value>& values) {
  std::string key = op.name;
  for (const Value& value : values) {
    key += '|' + std::to_string(value.i) + '|' + std::to_string(float_to_bits(value.f)) + '|' + value.s;
  }
  return key;
}

// A routine for each operator and attributes. It has to last, as what it uploads does: the stream may come to
// that when the call is long over.
hosts::Routine& routine_of(const Operator& op, const std::vector<Value>& values) {
  static auto& kept = *new std::map<std::string, std::unique_ptr<hosts::Routine>>;
  std::unique_ptr<hosts::Routine>& routine = kept[key_of(op, values)];
  if (!routine) routine = std::make_unique<hosts::Routine>(op, values);
  return *routine;
}

int call(const Operator& op, const TVMFFIAny* args, int32_t count) {
  return guarded([&] {
    const Arguments found = read(op, args, count, Memory::kGpu);
    hosts::check_values(op, found.values.data());
    hosts::Call call;
    call.inputs = found.inputs;
    call.output = found.output;
    call.values = found.values.data();
    hosts::check_call(op, call);
    const int device = tensor_of(args[0], op.inputs[0]).device.device_id;
    static auto& mutex = *new std::mutex;
    const std::lock_guard<std::mutex> lock(mutex);
    hosts::Routine& routine = routine_of(op, found.values);
    const Workspace workspace(device, routine.workspace_bytes(found.inputs, found.output));
    hosts::DriverDevice driver(static_cast<cuda::Stream>(TVMFFIEnvGetStream(kDLCUDA, device)));
    routine.run(found.inputs, found.output, workspace.data(), driver);
  });
}

}  // namespace
}  // namespace tvm
}  // namespace ek

EK_TVM_FUNCTIONS
