// Builds an engine as the constants above say. It is written as a whole, or not at all.
#include <NvOnnxParser.h>
#include <dlfcn.h>

#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>

namespace {

#define EK_AT_LEAST(major, minor) \
  (NV_TENSORRT_MAJOR > (major) || (NV_TENSORRT_MAJOR == (major) && NV_TENSORRT_MINOR >= (minor)))

static_assert(NV_TENSORRT_MAJOR == plan::kMajor || (plan::kStronglyTyped && NV_TENSORRT_MAJOR > plan::kMajor),
              "the network was prepared for another version of TensorRT");

class Logger : public nvinfer1::ILogger {
  void log(Severity severity, const char* text) noexcept override {
    if (severity <= Severity::kWARNING) std::cerr << text << '\n';
  }
};

void want(bool good, const std::string& what) {
  if (!good) throw std::runtime_error(what);
}

std::vector<char> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void write(const std::string& path, const void* data, std::size_t size) {
  const std::string part = path + ".part";
  std::ofstream file(part, std::ios::binary);
  file.write(static_cast<const char*>(data), static_cast<std::streamsize>(size));
  file.close();
  if (!file) std::remove(part.c_str());
  want(static_cast<bool>(file), "cannot write " + part);
  want(std::rename(part.c_str(), path.c_str()) == 0, "cannot write " + path);
}

nvinfer1::Dims dims(const std::vector<std::int64_t>& lengths) {
  nvinfer1::Dims result{};
  result.nbDims = static_cast<std::int32_t>(lengths.size());
  for (std::size_t i = 0; i < lengths.size(); ++i)
    result.d[i] = static_cast<std::remove_reference_t<decltype(result.d[0])>>(lengths[i]);
  return result;
}

void load_plugins(nvinfer1::IBuilder& builder) {
  if (!*plan::kPlugins) return;
  const std::string path = std::string("./") + plan::kPlugins;
#if EK_AT_LEAST(8, 6)
  want(builder.getPluginRegistry().loadLibrary(path.c_str()) != nullptr, "cannot load " + path);
#else
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  want(library != nullptr, "cannot load " + path);
  using Register = std::int32_t (*)(nvinfer1::IPluginRegistry*);
  auto add = reinterpret_cast<Register>(dlsym(library, "edgekit_trt_register"));
  want(add && add(getPluginRegistry()) == 0, path + " registers no plug-ins");
  static_cast<void>(builder);
#endif
}

#if NV_TENSORRT_MAJOR < 11
// Hands out the scales of a file. It has no images: nothing is calibrated here.
class Scales : public nvinfer1::IInt8EntropyCalibrator2 {
 public:
  std::int32_t getBatchSize() const noexcept override { return 1; }
  bool getBatch(void**, const char**, std::int32_t) noexcept override { return false; }
  const void* readCalibrationCache(std::size_t& size) noexcept override {
    size = data_.size();
    return data_.data();
  }
  void writeCalibrationCache(const void*, std::size_t) noexcept override {}

 private:
  std::vector<char> data_ = read(plan::kCalibration);
};

void set_precisions(nvinfer1::INetworkDefinition& network) {
  for (std::int32_t i = 0; i < network.getNbLayers(); ++i)
    for (const char* name : plan::kSingleLayers)
      if (network.getLayer(i)->getName() == std::string(name))
        network.getLayer(i)->setPrecision(nvinfer1::DataType::kFLOAT);
}
#endif

void set_pools(nvinfer1::IBuilderConfig& config) {
  using Pool = nvinfer1::MemoryPoolType;
  config.setMemoryPoolLimit(Pool::kWORKSPACE, plan::kWorkspaceBytes);
#if EK_AT_LEAST(8, 6)
  config.setMemoryPoolLimit(Pool::kTACTIC_DRAM, plan::kTacticBytes);
  config.setBuilderOptimizationLevel(plan::kOptimizationLevel);
  config.setMaxAuxStreams(plan::kMaxAuxStreams);
#endif
  config.setAvgTimingIterations(plan::kAvgTimingIterations);
  config.setProfilingVerbosity(nvinfer1::ProfilingVerbosity::kDETAILED);
  if (plan::kDlaCore < 0) return;
  config.setDefaultDeviceType(nvinfer1::DeviceType::kDLA);
  config.setDLACore(plan::kDlaCore);
  config.setMemoryPoolLimit(Pool::kDLA_MANAGED_SRAM, plan::kDlaSram);
  config.setMemoryPoolLimit(Pool::kDLA_LOCAL_DRAM, plan::kDlaLocal);
  config.setMemoryPoolLimit(Pool::kDLA_GLOBAL_DRAM, plan::kDlaGlobal);
}

nvinfer1::IOptimizationProfile* add_profile(nvinfer1::IBuilder& builder, nvinfer1::IBuilderConfig& config) {
  if (plan::kProfiles.empty()) return nullptr;
  auto* profile = builder.createOptimizationProfile();
  using Select = nvinfer1::OptProfileSelector;
  for (const auto& one : plan::kProfiles)
    want(profile->setDimensions(one.input, Select::kMIN, dims(one.min)) &&
             profile->setDimensions(one.input, Select::kOPT, dims(one.opt)) &&
             profile->setDimensions(one.input, Select::kMAX, dims(one.max)),
         std::string("shapes of ") + one.input);
  config.addOptimizationProfile(profile);
  return profile;
}

std::uint32_t network_flags() {
#if NV_TENSORRT_MAJOR == 8
  return 1u << static_cast<int>(nvinfer1::NetworkDefinitionCreationFlag::kEXPLICIT_BATCH);
#elif NV_TENSORRT_MAJOR == 10
  return plan::kStronglyTyped ? 1u << static_cast<int>(nvinfer1::NetworkDefinitionCreationFlag::kSTRONGLY_TYPED)
                              : 0u;
#else
  return 0u;
#endif
}

void build(const std::string& path) {
  Logger logger;
  std::unique_ptr<nvinfer1::IBuilder> builder(nvinfer1::createInferBuilder(logger));
  want(builder != nullptr, "no builder: is there a GPU?");
  load_plugins(*builder);
  std::unique_ptr<nvinfer1::INetworkDefinition> network(builder->createNetworkV2(network_flags()));
  std::unique_ptr<nvonnxparser::IParser> parser(nvonnxparser::createParser(*network, logger));
  want(parser->parseFromFile(plan::kModel, static_cast<int>(nvinfer1::ILogger::Severity::kWARNING)),
       std::string("the parser refuses ") + plan::kModel);
  std::unique_ptr<nvinfer1::IBuilderConfig> config(builder->createBuilderConfig());
  plan::set_flags(*config);
  set_pools(*config);
  auto* profile = add_profile(*builder, *config);
#if NV_TENSORRT_MAJOR < 11
  Scales scales;
  if (*plan::kCalibration) config->setInt8Calibrator(&scales);
  if (*plan::kCalibration && profile) config->setCalibrationProfile(profile);
  set_precisions(*network);
#else
  static_cast<void>(profile);
#endif
  const std::vector<char> known = read(plan::kTimingCache);
  std::unique_ptr<nvinfer1::ITimingCache> cache(config->createTimingCache(known.data(), known.size()));
  want(cache && config->setTimingCache(*cache, false), "the timing cache is of another device");
  std::unique_ptr<nvinfer1::IHostMemory> engine(builder->buildSerializedNetwork(*network, *config));
  want(engine != nullptr, "TensorRT built no engine");
  write(path, engine->data(), engine->size());
  std::unique_ptr<nvinfer1::IHostMemory> times(config->getTimingCache()->serialize());
  if (times) write(plan::kTimingCache, times->data(), times->size());
}

}  // namespace

int main(int count, char** arguments) {
  try {
    build(count > 1 ? arguments[1] : "model.engine");
  } catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
