// The operators as IPluginV2DynamicExt, for TensorRT 8. Not yet run on a device.
#include "hosts/tensorrt/driver.h"
#include "hosts/tensorrt/plugin.h"
#include "hosts/tensorrt/record.h"

namespace ek {
namespace hosts {
namespace tensorrt {
namespace {

using namespace nvinfer1;

class Plugin : public IPluginV2DynamicExt {
 public:
  Plugin(const Operator& op, std::vector<Value> values, std::string name_space)
      : routine_(op, std::move(values)),
        record_(write_record(op, routine_.values())),
        name_space_(std::move(name_space)) {}

  const char* getPluginType() const noexcept override { return op().name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return name_space_.c_str(); }
  void setPluginNamespace(const char* name_space) noexcept override { name_space_ = name_space; }
  int32_t getNbOutputs() const noexcept override { return 1; }

  // The device code is loaded here: the first inference has no time for it.
  int32_t initialize() noexcept override {
    return guarded<int32_t>(op(), -1, [&] {
      load_device_code();
      return 0;
    });
  }
  void terminate() noexcept override {}
  void destroy() noexcept override { delete this; }

  IPluginV2DynamicExt* clone() const noexcept override {
    return guarded<IPluginV2DynamicExt*>(op(), nullptr,
                                         [&] { return new Plugin(op(), routine_.values(), name_space_); });
  }

  size_t getSerializationSize() const noexcept override { return record_.size(); }
  void serialize(void* buffer) const noexcept override {
    record_.copy(static_cast<char*>(buffer), record_.size());
  }

  DataType getOutputDataType(int32_t, const DataType* inputs, int32_t) const noexcept override {
    return inputs[0];
  }

  // There is no other way to refuse than dimensions that nothing fits.
  DimsExprs getOutputDimensions(int32_t, const DimsExprs* inputs, int32_t count,
                                IExprBuilder&) noexcept override {
    DimsExprs none{};
    none.nbDims = -1;
    return guarded<DimsExprs>(op(), none, [&] { return output_dims(op(), inputs, count); });
  }

  bool supportsFormatCombination(int32_t at, const PluginTensorDesc* arrays, int32_t,
                                 int32_t) noexcept override {
    return supports(arrays[at], arrays[0]);
  }

  void configurePlugin(const DynamicPluginTensorDesc*, int32_t, const DynamicPluginTensorDesc*,
                       int32_t) noexcept override {}

  size_t getWorkspaceSize(const PluginTensorDesc* inputs, int32_t, const PluginTensorDesc* outputs,
                          int32_t) const noexcept override {
    return guarded<size_t>(op(), 0, [&] { return workspace_bytes(routine_, inputs, outputs[0]); });
  }

  int32_t enqueue(const PluginTensorDesc* inputs, const PluginTensorDesc* outputs, const void* const* data,
                  void* const* results, void* workspace, cudaStream_t stream) noexcept override {
    return guarded<int32_t>(op(), -1, [&] {
      tensorrt::enqueue(routine_, inputs, outputs[0], data, results, workspace, stream);
      return 0;
    });
  }

 private:
  const Operator& op() const { return routine_.op(); }

  Routine routine_;
  std::string record_, name_space_;
};

class Creator : public IPluginCreator {
 public:
  Creator(const Operator& op, const char* name_space) : op_(op), fields_(op), name_space_(name_space) {}

  IPluginV2* createPlugin(const char*, const PluginFieldCollection* fields) noexcept override {
    return guarded<IPluginV2*>(op_, nullptr,
                               [&] { return new Plugin(op_, values_of(op_, fields), name_space_); });
  }

  IPluginV2* deserializePlugin(const char*, const void* data, size_t size) noexcept override {
    return guarded<IPluginV2*>(op_, nullptr,
                               [&] { return new Plugin(op_, read_record(op_, data, size), name_space_); });
  }

  const PluginFieldCollection* getFieldNames() noexcept override { return fields_.collection(); }
  const char* getPluginName() const noexcept override { return op_.name; }
  const char* getPluginVersion() const noexcept override { return kPluginVersion; }
  const char* getPluginNamespace() const noexcept override { return name_space_.c_str(); }
  void setPluginNamespace(const char* name_space) noexcept override { name_space_ = name_space; }

 private:
  const Operator& op_;
  Fields fields_;
  std::string name_space_;
};

}  // namespace
}  // namespace tensorrt
}  // namespace hosts
}  // namespace ek

#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
// What IPluginRegistry::loadLibrary() asks for, which 8.5 does not have.
EK_EXPORT nvinfer1::IPluginCreator* const* getPluginCreators(int32_t& count) {
  static const auto& list = *[] {
    auto* pointers = new std::vector<nvinfer1::IPluginCreator*>;
    for (const auto& creator : ek::hosts::tensorrt::creators<ek::hosts::tensorrt::Creator>()) {
      pointers->push_back(creator.get());
    }
    return pointers;
  }();
  count = static_cast<int32_t>(list.size());
  return list.data();
}
#endif

// For programs that load the library by themselves, as they have to with 8.5. How many creators the registry
// has taken, which refuses what it has already; -1 without a registry. Later versions have loadLibrary(),
// which knows the registry's interface: that of 11 is not that of 10.
EK_EXPORT int32_t edgekit_trt_register(nvinfer1::IPluginRegistry* registry) {
  if (!registry) return -1;
  int32_t taken = 0;
  for (const auto& creator : ek::hosts::tensorrt::creators<ek::hosts::tensorrt::Creator>()) {
    const std::string name_space = creator->getPluginNamespace();
    taken += registry->registerCreator(*creator, name_space.c_str());
  }
  return taken;
}
