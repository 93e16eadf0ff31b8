// The operators in TVM: functions of its C interface, which compiled networks are linked with, object and
// kernels, so that a network is one file. Its tensors are read and written in place, by its threads. No C++
// exception and no C++ object crosses the interface.
#include <tvm/ffi/c_api.h>

#include <algorithm>
#include <exception>
#include <stdexcept>
#include <string>
#include <vector>

#include "hosts/operators.h"

namespace {

// tvm/runtime/c_backend_api.h says the same, where the rest of TVM is installed.
struct Group {
  void* sync;
  int32_t tasks;
};
using TaskFn = int (*)(int task, Group* group, void* data);
using LaunchFn = int (*)(TaskFn fn, void* data, int tasks);

}  // namespace

// Set by the loader of TVM's runtime to its TVMBackendParallelLaunch, in every library that has such a
// symbol. The code of networks has it too, weak, and calls the same threads.
extern "C" {
__attribute__((weak, visibility("default"))) LaunchFn __TVMBackendParallelLaunch = nullptr;
}

namespace ek {
namespace tvm {
namespace {

using hosts::Array;
using hosts::Kind;
using hosts::Operator;
using hosts::Value;

constexpr int kAllThreads = 0;

struct Loop {
  RangeFn fn;
  const void* context;
  int64_t count;
  int64_t next;
};

// The body of one thread, of as many as the runtime lends: it takes tasks until none is left.
int take_tasks(int, Group*, void* data) {
  Loop& loop = *static_cast<Loop*>(data);
  for (;;) {
    const int64_t task = __atomic_fetch_add(&loop.next, int64_t{1}, __ATOMIC_RELAXED);
    if (task >= loop.count) return 0;
    loop.fn(loop.context, task, task + 1);
  }
}

void run_parallel(void*, int64_t count, RangeFn fn, const void* context) {
  // Nobody has threads to lend where the library was loaded without TVM's runtime.
  if (count <= 1 || !__TVMBackendParallelLaunch) return fn(context, 0, count);
  Loop loop{fn, context, count, 0};
  if (__TVMBackendParallelLaunch(take_tasks, &loop, kAllThreads) != 0)
    throw std::runtime_error("the threads of TVM failed");
}

std::string text(const int64_t* values, int count) {
  std::string found;
  for (int i = 0; i < count; ++i) found += (i ? ", " : "") + std::to_string(values[i]);
  return "[" + found + "]";
}

// An axis of one has no step.
bool is_contiguous(const DLTensor& tensor) {
  if (!tensor.strides || std::find(tensor.shape, tensor.shape + tensor.ndim, 0) != tensor.shape + tensor.ndim)
    return true;
  int64_t step = 1;
  for (int i = tensor.ndim - 1; i >= 0; --i) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != step) return false;
    step *= tensor.shape[i];
  }
  return true;
}

const DLTensor& tensor_of(const TVMFFIAny& arg, const std::string& name) {
  if (arg.type_index == kTVMFFITensor) return *TVMFFITensorGetDLTensorPtr(arg.v_obj);
  require(arg.type_index == kTVMFFIDLTensorPtr, name + " must be a tensor");
  return *static_cast<const DLTensor*>(arg.v_ptr);
}

Array array_of(const TVMFFIAny& arg, const std::string& name) {
  const DLTensor& tensor = tensor_of(arg, name);
  require(tensor.device.device_type == kDLCPU || tensor.device.device_type == kDLCUDAHost,
          name + " must be in the memory of the processor, got device type " +
              std::to_string(tensor.device.device_type));
  const DLDataType& dtype = tensor.dtype;
  require(dtype.code == kDLFloat && dtype.lanes == 1 && (dtype.bits == 32 || dtype.bits == 16),
          name + " must be float32 or float16");
  require(is_contiguous(tensor), name + " must be C-contiguous, got strides " +
                                     text(tensor.strides, tensor.ndim) + " for shape " +
                                     text(tensor.shape, tensor.ndim));
  Array array;
  array.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
  array.type = dtype.bits == 32 ? Type::kFloat32 : Type::kFloat16;
  array.shape = {static_cast<int64_t>(tensor.ndim), tensor.shape};
  return array;
}

Value value_of(const TVMFFIAny& arg, const hosts::Attribute& attribute) {
  Value value;
  const bool is_int = arg.type_index == kTVMFFIInt || arg.type_index == kTVMFFIBool;
  if (attribute.kind == Kind::kInt) {
    require(is_int, std::string(attribute.name) + " must be an integer");
    value.i = arg.v_int64;
  } else if (attribute.kind == Kind::kFloat) {
    require(is_int || arg.type_index == kTVMFFIFloat, std::string(attribute.name) + " must be a number");
    value.f = is_int ? static_cast<float>(arg.v_int64) : static_cast<float>(arg.v_float64);
  } else if (arg.type_index == kTVMFFISmallStr) {
    value.s.assign(arg.v_bytes, arg.small_str_len);
  } else if (arg.type_index == kTVMFFIRawStr) {
    value.s = arg.v_c_str;
  } else {
    require(arg.type_index == kTVMFFIStr, std::string(attribute.name) + " must be a string");
    const TVMFFIByteArray& bytes = *TVMFFIBytesGetByteArrayPtr(arg.v_obj);
    value.s.assign(bytes.data, bytes.size);
  }
  return value;
}

struct Arguments {
  Arguments(const Operator& op, const TVMFFIAny* args, int32_t count) {
    const size_t wanted = op.inputs.size() + op.attributes.size() + 1;
    require(static_cast<size_t>(count) == wanted,
            "wants " + std::to_string(wanted) + " arguments, got " + std::to_string(count));
    for (size_t i = 0; i < op.inputs.size(); ++i) inputs[i] = array_of(*args++, op.inputs[i]);
    values.reserve(op.attributes.size());
    for (const hosts::Attribute& attribute : op.attributes) values.push_back(value_of(*args++, attribute));
    output = array_of(*args, op.output);
  }

  Array inputs[hosts::kMaxInputs];
  std::vector<Value> values;
  Array output;
};

Arguments read(const Operator& op, const TVMFFIAny* args, int32_t count) {
  try {
    return {op, args, count};
  } catch (const Error& error) {
    throw Error(std::string(op.name) + ": " + error.what());
  }
}

// Takes the inputs, the attributes in their order, and the output.
int call(const Operator& op, const TVMFFIAny* args, int32_t count) {
  try {
    const Arguments found = read(op, args, count);
    hosts::check_values(op, found.values.data());
    hosts::Call call;
    call.inputs = found.inputs;
    call.output = found.output;
    call.values = found.values.data();
    call.isa = hosts::chosen_isa();
    call.parallel = {run_parallel, nullptr, 0};
    hosts::run(op, call);
    return 0;
  } catch (const Error& error) {
    TVMFFIErrorSetRaisedFromCStr("ValueError", error.what());
  } catch (const std::exception& error) {
    TVMFFIErrorSetRaisedFromCStr("RuntimeError", error.what());
  }
  return -1;
}

}  // namespace
}  // namespace tvm
}  // namespace ek

// The runtime finds `edgekit_Warp` by the symbol `__tvm_ffi_edgekit_Warp`.
#define EK_TVM_FUNCTION(name)                                                     \
  extern "C" __attribute__((visibility("default"))) int __tvm_ffi_edgekit_##name( \
      void*, const TVMFFIAny* args, int32_t count, TVMFFIAny*) {                  \
    static const ek::hosts::Operator& op = *ek::hosts::find_operator(#name);      \
    return ek::tvm::call(op, args, count);                                        \
  }

EK_TVM_FUNCTION(Warp)
EK_TVM_FUNCTION(Compose)
EK_TVM_FUNCTION(IntegrateVelocity)
EK_TVM_FUNCTION(GridSample3d)
EK_TVM_FUNCTION(JacobianDeterminant)
EK_TVM_FUNCTION(NonLocalMeans)
EK_TVM_FUNCTION(Bilateral)
