// The operators as IPluginV3, for TensorRT 10 and 11. Not yet run on a device.
#include "hosts/tensorrt/driver.h"
#include "hosts/tensorrt/plugin.h"

namespace ek {
namespace hosts {
namespace tensorrt {
namespace {

using namespace nvinfer1;

class Plugin : public IPluginV3,
               public IPluginV3OneCore,
               public IPluginV3OneBuild,
               public IPluginV3OneRuntime {
 public:
  Plugin(const Operator& op, std::vector<Value> values, const char* name_space)
      : routine_(op, std::move(values)), fields_(op, &routine_.values()), name_space_(name_space) {}

  IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override {
    switch (type) {
      case PluginCapabilityType::kCORE:
        return static_cast<IPluginV3OneCore*>(this);
      case PluginCapabilityType::kBUILD:
        return static_cast<IPluginV3OneBuild*>(this);
      case PluginCapabilityType::kRUNTIME:
        return static_cast<IPluginV3OneRuntime*>(this);
    }
    return nullptr;
  }

  IPluginV3* clone() noexcept override {
    return guarded<IPluginV3*>(op(), nullptr,
                               [&] { return new Plugin(op(), routine_.values(), name_space_); });
  }

  const char* getPluginName() const noexcept override { return op().name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return name_space_; }

  int32_t getNbOutputs() const noexcept override { return 1; }

  int32_t configurePlugin(const DynamicPluginTensorDesc*, int32_t inputs, const DynamicPluginTensorDesc*,
                          int32_t outputs) noexcept override {
    return inputs == static_cast<int32_t>(op().inputs.size()) && outputs == 1 ? 0 : -1;
  }

  int32_t getOutputDataTypes(DataType* types, int32_t outputs, const DataType* inputs,
                             int32_t count) const noexcept override {
    if (outputs != 1 || count < 1) return -1;
    types[0] = inputs[0];
    return 0;
  }

  int32_t getOutputShapes(const DimsExprs* inputs, int32_t count, const DimsExprs*, int32_t,
                          DimsExprs* outputs, int32_t, IExprBuilder&) noexcept override {
    return guarded<int32_t>(op(), -1, [&] {
      outputs[0] = output_dims(op(), inputs, count);
      return 0;
    });
  }

  bool supportsFormatCombination(int32_t at, const DynamicPluginTensorDesc* arrays, int32_t,
                                 int32_t) noexcept override {
    return supports(arrays[at].desc, arrays[0].desc);
  }

  size_t getWorkspaceSize(const DynamicPluginTensorDesc* inputs, int32_t count,
                          const DynamicPluginTensorDesc* outputs, int32_t) const noexcept override {
    return guarded<size_t>(op(), 0, [&] {
      std::vector<PluginTensorDesc> largest;
      for (int32_t i = 0; i < count; ++i) largest.push_back(largest_of(inputs[i]));
      return workspace_bytes(routine_, largest.data(), largest_of(outputs[0]));
    });
  }

  int32_t onShapeChange(const PluginTensorDesc*, int32_t, const PluginTensorDesc*,
                        int32_t) noexcept override {
    return 0;
  }

  int32_t enqueue(const PluginTensorDesc* inputs, const PluginTensorDesc* outputs, const void* const* data,
                  void* const* results, void* workspace, cudaStream_t stream) noexcept override {
    return guarded<int32_t>(op(), -1, [&] {
      tensorrt::enqueue(routine_, inputs, outputs[0], data, results, workspace, stream);
      return 0;
    });
  }

  // The device code is loaded here: the first inference has no time for it.
  IPluginV3* attachToContext(IPluginResourceContext*) noexcept override {
    return guarded<IPluginV3*>(op(), nullptr, [&] {
      load_device_code();
      return new Plugin(op(), routine_.values(), name_space_);
    });
  }

  const PluginFieldCollection* getFieldsToSerialize() noexcept override { return fields_.collection(); }

 private:
  const Operator& op() const { return routine_.op(); }

  // Lengths that vary are -1 there.
  static PluginTensorDesc largest_of(const DynamicPluginTensorDesc& array) {
    PluginTensorDesc desc = array.desc;
    desc.dims = array.max;
    return desc;
  }

  Routine routine_;
  Fields fields_;
  const char* name_space_;  // one of kNamespaces
};

class Creator : public IPluginCreatorV3One {
 public:
  Creator(const Operator& op, const char* name_space) : op_(op), fields_(op), name_space_(name_space) {}

  // The same for a node of ONNX and for a plan, which holds what getFieldsToSerialize() said.
  IPluginV3* createPlugin(const char*, const PluginFieldCollection* fields, TensorRTPhase) noexcept override {
    return guarded<IPluginV3*>(op_, nullptr,
                               [&] { return new Plugin(op_, values_of(op_, fields), name_space_); });
  }

  const PluginFieldCollection* getFieldNames() noexcept override { return fields_.collection(); }
  const char* getPluginName() const noexcept override { return op_.name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return name_space_; }

 private:
  const Operator& op_;
  Fields fields_;
  const char* name_space_;
};

}  // namespace
}  // namespace tensorrt
}  // namespace hosts
}  // namespace ek

// What IPluginRegistry::loadLibrary() asks for.
EK_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static const auto& list = *[] {
    auto* pointers = new std::vector<nvinfer1::IPluginCreatorInterface*>;
    for (const auto& creator : ek::hosts::tensorrt::creators<ek::hosts::tensorrt::Creator>()) {
      pointers->push_back(creator.get());
    }
    return pointers;
  }();
  count = static_cast<int32_t>(list.size());
  return list.data();
}
