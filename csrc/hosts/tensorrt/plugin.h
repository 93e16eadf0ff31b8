// What the plug-ins of both interfaces share: views of TensorRT's arrays, attributes from and to its fields,
// and errors in its log. Included where TensorRT's headers are.
#pragma once

#include <NvInfer.h>

#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "hosts/tensorrt/routine.h"

namespace ek {
namespace hosts {
namespace tensorrt {

// In TensorRT's log if it has told us where that is (from 8.6 on), else on the standard error output.
void log_error(const std::string& message) noexcept;

// Calls `task`. No exception may reach TensorRT: it is logged, and the result is `failed`.
template <class Result, class Task>
Result guarded(const Operator& op, Result failed, const Task& task) noexcept {
  try {
    return task();
  } catch (const Error& error) {  // has the operator's name where it is about one
    log_error(error.what());
  } catch (const std::exception& error) {
    log_error(std::string(op.name) + ": " + error.what());
  }
  return failed;
}

// The attributes of a node, with defaults for those that it does not say. Throws Error.
std::vector<Value> values_of(const Operator& op, const nvinfer1::PluginFieldCollection* fields);

// Fields of all attributes. Data points to what they hold, if values are given.
class Fields {
 public:
  explicit Fields(const Operator& op, const std::vector<Value>* values = nullptr);
  Fields(const Fields&) = delete;
  Fields& operator=(const Fields&) = delete;

  const nvinfer1::PluginFieldCollection* collection() const { return &collection_; }

 private:
  std::vector<int32_t> integers_;
  std::vector<Value> values_;
  std::vector<nvinfer1::PluginField> fields_;
  nvinfer1::PluginFieldCollection collection_{};
};

// Planar arrays of float32 or float16 alone, all of the type of the first.
bool supports(const nvinfer1::PluginTensorDesc& desc, const nvinfer1::PluginTensorDesc& first);

// Throws Error for what an operator cannot take.
Array array_of(const nvinfer1::PluginTensorDesc& desc, const void* data = nullptr);

// The inputs of a call, which TensorRT describes one by one.
struct Arrays {
  Array inputs[kMaxInputs];
};
Arrays arrays_of(const Operator& op, const nvinfer1::PluginTensorDesc* descs, const void* const* data);

// Throws Error for a number of inputs or of axes that the operator does not take.
nvinfer1::DimsExprs output_dims(const Operator& op, const nvinfer1::DimsExprs* inputs, int32_t count);

// Of the largest arrays that the plug-in will be given. Throws Error.
size_t workspace_bytes(const Routine& routine, const nvinfer1::PluginTensorDesc* inputs,
                       const nvinfer1::PluginTensorDesc& output);

// Runs a routine on TensorRT's stream. Throws Error and CudaError.
void enqueue(Routine& routine, const nvinfer1::PluginTensorDesc* inputs,
             const nvinfer1::PluginTensorDesc& output, const void* const* data, void* const* outputs,
             void* workspace, cudaStream_t stream);

// The two name spaces that nodes of the domain are looked up in: before 10.10 the parser asks in the first,
// then in the domain's.
constexpr const char* kNamespaces[] = {"", kDomain};
constexpr const char* kPluginVersion = "1";
static_assert(kVersion == 1, "the version of a plug-in is that of the domain");

// One creator of every operator in every name space, made once.
template <class Creator>
const std::vector<std::unique_ptr<Creator>>& creators() {
  static const auto& all = *[] {
    auto* made = new std::vector<std::unique_ptr<Creator>>;  // TensorRT keeps pointers to them to its end
    for (const char* name_space : kNamespaces) {
      for (const Operator& op : operators()) made->push_back(std::make_unique<Creator>(op, name_space));
    }
    return made;
  }();
  return all;
}

}  // namespace tensorrt
}  // namespace hosts
}  // namespace ek

#define EK_EXPORT extern "C" __attribute__((visibility("default")))
