#include "hosts/tensorrt/plugin.h"

#include <atomic>
#include <cstdio>
#include <cstring>

#include "hosts/tensorrt/driver.h"

#define EK_TENSORRT_VERSION (NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR)

namespace ek {
namespace hosts {
namespace tensorrt {
namespace {

#if EK_TENSORRT_VERSION >= 806
std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

nvinfer1::ILogger* logger() {
  nvinfer1::ILoggerFinder* finder = logger_finder;
  return finder ? finder->findLogger() : nullptr;
}
#else
nvinfer1::ILogger* logger() { return nullptr; }
#endif

template <class T>
T first_of(const nvinfer1::PluginField& field) {
  T value;
  std::memcpy(&value, field.data, sizeof value);
  return value;
}

// An attribute of ONNX arrives as the parser, or a caller of the network's interface, likes to store it.
int64_t integer(const nvinfer1::PluginField& field) {
  using Type = nvinfer1::PluginFieldType;
  switch (field.type) {
    case Type::kINT8:
      return first_of<int8_t>(field);
    case Type::kINT16:
      return first_of<int16_t>(field);
    case Type::kINT32:
      return first_of<int32_t>(field);
#if NV_TENSORRT_MAJOR >= 10
    case Type::kINT64:
      return first_of<int64_t>(field);
#endif
    default:
      throw Error(std::string(field.name) + " must be an integer");
  }
}

float number(const nvinfer1::PluginField& field) {
  using Type = nvinfer1::PluginFieldType;
  if (field.type == Type::kFLOAT32) return first_of<float>(field);
  if (field.type == Type::kFLOAT64) return static_cast<float>(first_of<double>(field));
  throw Error(std::string(field.name) + " must be float32 or float64");
}

// Texts have a length. Some callers count the 0 at the end.
std::string text(const nvinfer1::PluginField& field) {
  require(field.type == nvinfer1::PluginFieldType::kCHAR, std::string(field.name) + " must be a text");
  require(field.length >= 0, std::string(field.name) + " has a negative length");
  const char* data = static_cast<const char*>(field.data);
  return {data, strnlen(data, static_cast<size_t>(field.length))};
}

Value value_of(const Attribute& attribute, const nvinfer1::PluginField& field) {
  require(field.data, std::string(field.name) + " has no data");
  Value value;
  if (attribute.kind == Kind::kString) {
    value.s = text(field);
    return value;
  }
  require(field.length == 1, std::string(field.name) + " must be one number");
  if (attribute.kind == Kind::kInt) {
    value.i = integer(field);
  } else {
    value.f = number(field);
  }
  return value;
}

nvinfer1::PluginFieldType field_type(Kind kind) {
  return kind == Kind::kInt     ? nvinfer1::PluginFieldType::kINT32
         : kind == Kind::kFloat ? nvinfer1::PluginFieldType::kFLOAT32
                                : nvinfer1::PluginFieldType::kCHAR;
}

}  // namespace

void log_error(const std::string& message) noexcept {
  if (nvinfer1::ILogger* to = logger()) {
    to->log(nvinfer1::ILogger::Severity::kERROR, ("edgekit: " + message).c_str());
  } else {
    std::fprintf(stderr, "edgekit: %s\n", message.c_str());
  }
}

std::vector<Value> values_of(const Operator& op, const nvinfer1::PluginFieldCollection* fields) {
  const std::string name = std::string(op.name) + ": ";
  const size_t count = op.attributes.size();
  std::vector<Value> values(count);
  std::vector<bool> said(count);
  for (int32_t k = 0; fields && k < fields->nbFields; ++k) {
    const nvinfer1::PluginField& field = fields->fields[k];
    require(field.name, name + "an attribute has no name");
    size_t i = 0;
    while (i < count && std::strcmp(op.attributes[i].name, field.name) != 0) ++i;
    require(i < count, name + "there is no attribute '" + field.name + "'");
    require(!said[i], name + "'" + field.name + "' is there twice");
    try {
      values[i] = value_of(op.attributes[i], field);
    } catch (const Error& error) {
      throw Error(name + error.what());
    }
    said[i] = true;
  }
  for (size_t i = 0; i < count; ++i) {
    const Attribute& attribute = op.attributes[i];
    require(said[i] || !attribute.required, name + "the attribute '" + attribute.name + "' is missing");
    if (!said[i]) values[i] = attribute.value;
  }
  check_values(op, values.data());
  return values;
}

Fields::Fields(const Operator& op, const std::vector<Value>* values) : integers_(op.attributes.size()) {
  if (values) values_ = *values;
  for (size_t i = 0; i < op.attributes.size(); ++i) {
    const Attribute& attribute = op.attributes[i];
    nvinfer1::PluginField field{attribute.name, nullptr, field_type(attribute.kind), 1};
    if (values) {
      const Value& value = values_[i];
      integers_[i] = static_cast<int32_t>(value.i);  // all that there are fit
      field.data = &integers_[i];
      if (attribute.kind == Kind::kFloat) field.data = &value.f;
      if (attribute.kind == Kind::kString) {
        field.data = value.s.c_str();
        field.length = static_cast<int32_t>(value.s.size());
      }
    }
    fields_.push_back(field);
  }
  collection_.nbFields = static_cast<int32_t>(fields_.size());
  collection_.fields = fields_.data();
}

bool supports(const nvinfer1::PluginTensorDesc& desc, const nvinfer1::PluginTensorDesc& first) {
  return desc.format == nvinfer1::TensorFormat::kLINEAR && desc.type == first.type &&
         (desc.type == nvinfer1::DataType::kFLOAT || desc.type == nvinfer1::DataType::kHALF);
}

Array array_of(const nvinfer1::PluginTensorDesc& desc, const void* data) {
  require(supports(desc, desc), "arrays must be float32 or float16, in the linear format");
  require(desc.dims.nbDims >= 0 && desc.dims.nbDims <= kMaxRank, "arrays have at most 5 axes");
  Array array;
  array.data = const_cast<void*>(data);
  array.type = desc.type == nvinfer1::DataType::kHALF ? Type::kFloat16 : Type::kFloat32;
  array.shape.rank = desc.dims.nbDims;
  for (int axis = 0; axis < array.shape.rank; ++axis) {
    array.shape.dims[axis] = desc.dims.d[axis];
    require(desc.dims.d[axis] >= 1, "an array has an axis of unknown length, or of 0");
  }
  return array;
}

Arrays arrays_of(const Operator& op, const nvinfer1::PluginTensorDesc* descs, const void* const* data) {
  Arrays arrays;
  for (size_t i = 0; i < op.inputs.size(); ++i) {
    arrays.inputs[i] = array_of(descs[i], data ? data[i] : nullptr);
  }
  return arrays;
}

nvinfer1::DimsExprs output_dims(const Operator& op, const nvinfer1::DimsExprs* inputs, int32_t count) {
  require(count == static_cast<int32_t>(op.inputs.size()), std::string(op.name) + " wants " +
                                                               std::to_string(op.inputs.size()) +
                                                               " inputs, got " + std::to_string(count));
  int ranks[kMaxInputs] = {};
  for (int32_t i = 0; i < count; ++i) ranks[i] = inputs[i].nbDims;
  const std::vector<AxisOf> axes = output_axes(op, ranks);
  nvinfer1::DimsExprs dims{};
  dims.nbDims = static_cast<int32_t>(axes.size());
  for (size_t axis = 0; axis < axes.size(); ++axis)
    dims.d[axis] = inputs[axes[axis].input].d[axes[axis].axis];
  return dims;
}

size_t workspace_bytes(const Routine& routine, const nvinfer1::PluginTensorDesc* inputs,
                       const nvinfer1::PluginTensorDesc& output) {
  const Arrays arrays = arrays_of(routine.op(), inputs, nullptr);
  return static_cast<size_t>(routine.workspace_bytes(arrays.inputs, array_of(output)));
}

void enqueue(Routine& routine, const nvinfer1::PluginTensorDesc* inputs,
             const nvinfer1::PluginTensorDesc& output, const void* const* data, void* const* outputs,
             void* workspace, cudaStream_t stream) {
  const Arrays arrays = arrays_of(routine.op(), inputs, data);
  DriverDevice device(stream);
  routine.run(arrays.inputs, array_of(output, outputs[0]), workspace, device);
}

}  // namespace tensorrt
}  // namespace hosts
}  // namespace ek

#if EK_TENSORRT_VERSION >= 806
// TensorRT calls it when it has loaded the library.
EK_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) {
  ek::hosts::tensorrt::logger_finder = finder;
}
#endif
