// What the functions for TVM have in common, on the processor and on a GPU: they read their arguments, and
// turn what is thrown into TVM's errors.
#pragma once

#include <tvm/ffi/c_api.h>

#include <algorithm>
#include <exception>
#include <string>
#include <vector>

#include "hosts/operators.h"

namespace ek {
namespace tvm {

using hosts::Array;
using hosts::Kind;
using hosts::Operator;
using hosts::Value;

enum class Memory : uint8_t { kProcessor, kGpu };

inline std::string text(const int64_t* values, int count) {
  std::string found;
  for (int i = 0; i < count; ++i) found += (i ? ", " : "") + std::to_string(values[i]);
  return "[" + found + "]";
}

// An axis of one has no step.
inline bool is_contiguous(const DLTensor& tensor) {
  if (!tensor.strides || std::find(tensor.shape, tensor.shape + tensor.ndim, 0) != tensor.shape + tensor.ndim)
    return true;
  int64_t step = 1;
  for (int i = tensor.ndim - 1; i >= 0; --i) {
    if (tensor.shape[i] != 1 && tensor.strides[i] != step) return false;
    step *= tensor.shape[i];
  }
  return true;
}

inline const DLTensor& tensor_of(const TVMFFIAny& arg, const std::string& name) {
  if (arg.type_index == kTVMFFITensor) return *TVMFFITensorGetDLTensorPtr(arg.v_obj);
  require(arg.type_index == kTVMFFIDLTensorPtr, name + " must be a tensor");
  return *static_cast<const DLTensor*>(arg.v_ptr);
}

inline bool lies_in(Memory memory, const DLTensor& tensor) {
  const DLDeviceType type = tensor.device.device_type;
  if (memory == Memory::kProcessor) return type == kDLCPU || type == kDLCUDAHost;
  return type == kDLCUDA || type == kDLCUDAManaged;
}

inline Array array_of(const TVMFFIAny& arg, const std::string& name, Memory memory) {
  const DLTensor& tensor = tensor_of(arg, name);
  require(lies_in(memory, tensor), name + " must be in the memory of the " +
                                       (memory == Memory::kGpu ? "GPU" : "processor") + ", got device type " +
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

inline Value value_of(const TVMFFIAny& arg, const hosts::Attribute& attribute) {
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

// What a function is called with: the inputs, the attributes in their order, and the output.
struct Arguments {
  Arguments(const Operator& op, const TVMFFIAny* args, int32_t count, Memory memory) {
    const size_t wanted = op.inputs.size() + op.attributes.size() + 1;
    require(static_cast<size_t>(count) == wanted,
            "wants " + std::to_string(wanted) + " arguments, got " + std::to_string(count));
    for (size_t i = 0; i < op.inputs.size(); ++i) inputs[i] = array_of(*args++, op.inputs[i], memory);
    values.reserve(op.attributes.size());
    for (const hosts::Attribute& attribute : op.attributes) values.push_back(value_of(*args++, attribute));
    output = array_of(*args, op.output, memory);
  }

  Array inputs[hosts::kMaxInputs];
  std::vector<Value> values;
  Array output;
};

inline Arguments read(const Operator& op, const TVMFFIAny* args, int32_t count, Memory memory) {
  try {
    return {op, args, count, memory};
  } catch (const Error& error) {
    throw Error(std::string(op.name) + ": " + error.what());
  }
}

// Runs `task`: 0, or -1 with an error of TVM's in the place of what it throws.
template <class Task>
int guarded(const Task& task) {
  try {
    task();
    return 0;
  } catch (const Error& error) {
    TVMFFIErrorSetRaisedFromCStr("ValueError", error.what());
  } catch (const std::exception& error) {
    TVMFFIErrorSetRaisedFromCStr("RuntimeError", error.what());
  }
  return -1;
}

}  // namespace tvm
}  // namespace ek

// A function for each operator. The runtime finds `edgekit_Warp` by the symbol `__tvm_ffi_edgekit_Warp`.
#define EK_TVM_FUNCTION(name)                                                     \
  extern "C" __attribute__((visibility("default"))) int __tvm_ffi_edgekit_##name( \
      void*, const TVMFFIAny* args, int32_t count, TVMFFIAny*) {                  \
    static const ek::hosts::Operator& op = *ek::hosts::find_operator(#name);      \
    return ek::tvm::call(op, args, count);                                        \
  }
#define EK_TVM_FUNCTIONS               \
  EK_TVM_FUNCTION(Warp)                \
  EK_TVM_FUNCTION(Compose)             \
  EK_TVM_FUNCTION(IntegrateVelocity)   \
  EK_TVM_FUNCTION(GridSample3d)        \
  EK_TVM_FUNCTION(JacobianDeterminant) \
  EK_TVM_FUNCTION(NonLocalMeans)       \
  EK_TVM_FUNCTION(Bilateral)
