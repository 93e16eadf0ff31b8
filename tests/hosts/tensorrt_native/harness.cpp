// Does with a plug-in what TensorRT does, of either interface: makes it of fields, asks for shapes, types and
// workspace, keeps it in a plan and takes it out again, and runs it. The memory of the device is the
// processor's.
#include <NvInfer.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "problem.h"

#define EK_V3 (NV_TENSORRT_MAJOR >= 10)

namespace {

using namespace nvinfer1;

std::string logged;

class Logger : public ILogger {
 public:
  void log(Severity, const char* message) noexcept override { logged += message; }
} logger;

#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
class Finder : public ILoggerFinder {
 public:
  ILogger* findLogger() override { return &logger; }
} finder;
#endif

void require(bool holds, const char* what) {
  if (!holds) throw std::runtime_error(what + (": " + logged));
}

template <class Function>
Function* find(void* library, const char* name) {
  void* found = dlsym(library, name);
  require(found, name);
  return reinterpret_cast<Function*>(found);
}

#if EK_V3
using Creator = IPluginCreatorV3One;
#else
using Creator = IPluginCreator;
// A registry that keeps what it is given: 8.5 has no other way to hand creators over.
class Registry : public IPluginRegistry {
 public:
  bool registerCreator(IPluginCreator& creator, const char* const name_space) noexcept override {
    if (std::string(name_space) != creator.getPluginNamespace()) return false;
    creators.push_back(&creator);
    return true;
  }
  IPluginCreator* const* getPluginCreatorList(int32_t* const) const noexcept override { return nullptr; }
  IPluginCreator* getPluginCreator(const char* const, const char* const,
                                   const char* const) noexcept override {
    return nullptr;
  }
  void setErrorRecorder(IErrorRecorder* const) noexcept override {}
  IErrorRecorder* getErrorRecorder() const noexcept override { return nullptr; }
  bool deregisterCreator(const IPluginCreator&) noexcept override { return false; }
#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
  bool isParentSearchEnabled() const override { return false; }
  void setParentSearchEnabled(bool const) override {}
  PluginLibraryHandle loadLibrary(const char*) noexcept override { return nullptr; }
  void deregisterLibrary(PluginLibraryHandle) noexcept override {}
#endif

  std::vector<IPluginCreator*> creators;
};
#endif

std::vector<Creator*> creators_of(void* library) {
  std::vector<Creator*> found;
#if EK_V3
  int32_t count = 0;
  IPluginCreatorInterface* const* list =
      find<IPluginCreatorInterface* const*(int32_t&)>(library, "getCreators")(count);
  for (int32_t i = 0; i < count; ++i) {
    require(std::strcmp(list[i]->getInterfaceInfo().kind, "PLUGIN CREATOR_V3ONE") == 0, "another interface");
    found.push_back(static_cast<Creator*>(list[i]));
  }
#else
  Registry registry;
  const int32_t taken = find<int32_t(IPluginRegistry*)>(library, "edgekit_trt_register")(&registry);
  found = registry.creators;
  require(taken == static_cast<int32_t>(found.size()), "the count of creators");
#if NV_TENSORRT_MINOR >= 6
  int32_t count = 0;
  IPluginCreator* const* list = find<IPluginCreator* const*(int32_t&)>(library, "getPluginCreators")(count);
  require(std::vector<Creator*>(list, list + count) == found, "the two lists of creators");
#endif
#endif
  return found;
}

void* open_library(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) throw std::runtime_error(dlerror());
#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
  find<void(ILoggerFinder*)>(library, "setLoggerFinder")(&finder);
#endif
  return library;
}

Creator& creator_of(const char* path, const std::string& name, const std::string& name_space) {
  for (Creator* creator : creators_of(open_library(path))) {
    if (name == creator->getPluginName() && name_space == creator->getPluginNamespace()) return *creator;
  }
  throw std::runtime_error("no creator of " + name);
}

// Fields as a parser makes them of a node: `wide` says with which of the two types for each kind of number.
class NodeFields {
 public:
  NodeFields(const Problem& problem, bool wide) {
    test::each_attribute(problem, [&](const std::string& name, const std::string& kind,
                                      const std::string& text) { add(name, kind, text, wide); });
    collection.nbFields = static_cast<int32_t>(fields_.size());
    collection.fields = fields_.data();
  }

  PluginFieldCollection collection{};

 private:
  struct Data {
    std::string name, text;
    int32_t i32;
    int64_t i64;
    float f32;
    double f64;
  };

  void add(const std::string& name, const std::string& kind, const std::string& text, bool wide) {
    data_.push_back(std::make_unique<Data>());
    Data& data = *data_.back();
    data = {name,
            text,
            std::atoi(text.c_str()),
            std::atoll(text.c_str()),
            std::strtof(text.c_str(), nullptr),
            std::strtod(text.c_str(), nullptr)};
    PluginField field{data.name.c_str(), nullptr, PluginFieldType::kCHAR, 1};
    if (kind == "string") {
      field.data = data.text.c_str();
      field.length = static_cast<int32_t>(text.size()) + (wide ? 1 : 0);
    } else if (kind == "float") {
      field.type = wide ? PluginFieldType::kFLOAT64 : PluginFieldType::kFLOAT32;
      field.data = wide ? static_cast<const void*>(&data.f64) : &data.f32;
    } else {
      field.type = PluginFieldType::kINT32;
      field.data = &data.i32;
#if EK_V3
      if (wide) field.type = PluginFieldType::kINT64, field.data = &data.i64;
#endif
    }
    fields_.push_back(field);
  }

  std::vector<std::unique_ptr<Data>> data_;
  std::vector<PluginField> fields_;
};

// The arrays of a problem as TensorRT describes them, inputs first.
struct Described {
  explicit Described(const Problem& problem) {
    for (int i = 0; i <= problem.count; ++i) {
      const ProblemArray& array = i < problem.count ? problem.inputs[i] : problem.output;
      PluginTensorDesc desc{};
      desc.dims.nbDims = array.rank;
      for (int axis = 0; axis < array.rank; ++axis) {
        desc.dims.d[axis] = static_cast<decltype(+desc.dims.d[0])>(array.dims[axis]);
      }
      desc.type = problem.half ? DataType::kHALF : DataType::kFLOAT;
      desc.format = TensorFormat::kLINEAR;
      DynamicPluginTensorDesc range{};
      range.desc = desc;
      range.min = range.max = desc.dims;
      for (int axis = 0; axis < array.rank; ++axis) range.desc.dims.d[axis] = -1;  // as where lengths vary
      plain.push_back(desc);
      dynamic.push_back(range);
    }
  }

  std::vector<PluginTensorDesc> plain;
  std::vector<DynamicPluginTensorDesc> dynamic;
};

class Expressions : public IExprBuilder {
} expressions;

// Lengths are expressions that nobody looks into: the output's have to be some of the inputs'.
template <class Ask>
void check_dims(const Problem& problem, const Ask& ask) {
  std::vector<DimsExprs> inputs(static_cast<size_t>(problem.count));
  std::vector<int64_t> lengths;
  for (int i = 0; i < problem.count; ++i) {
    inputs[i].nbDims = problem.inputs[i].rank;
    for (int axis = 0; axis < inputs[i].nbDims; ++axis) {
      lengths.push_back(problem.inputs[i].dims[axis]);
      inputs[i].d[axis] = reinterpret_cast<const IDimensionExpr*>(16 * lengths.size());
    }
  }
  const DimsExprs output = ask(inputs.data());
  require(output.nbDims == problem.output.rank, "the output's number of axes");
  for (int axis = 0; axis < output.nbDims; ++axis) {
    const auto expression = reinterpret_cast<size_t>(output.d[axis]) / 16;
    require(expression >= 1 && expression <= lengths.size(), "an axis of the output");
    require(lengths[expression - 1] == problem.output.dims[axis], "the length of an axis of the output");
  }
}

template <class Supports>
void check_formats(const Described& arrays, int count, const Supports& supports) {
  for (int at = 0; at <= count; ++at) {
    require(supports(at, arrays), "an array is not supported");
    Described other = arrays;
    other.plain[at].format = other.dynamic[at].desc.format = TensorFormat::kHWC8;
    require(!supports(at, other), "any format is supported");
    other = arrays;
    other.plain[at].type = other.dynamic[at].desc.type = DataType::kINT32;
    require(!supports(at, other), "any type is supported");
    if (at == 0) continue;
    other.plain[at].type = other.dynamic[at].desc.type =
        arrays.plain[0].type == DataType::kHALF ? DataType::kFLOAT : DataType::kHALF;
    require(!supports(at, other), "two types are supported");
  }
}

// Of exactly so many bytes, at a multiple of 256, as TensorRT's is.
struct Workspace {
  explicit Workspace(size_t bytes)
      : size(bytes), data(bytes ? ::operator new(bytes, std::align_val_t{256}) : nullptr) {
    if (bytes) std::memset(data, 0xff, bytes);
  }
  ~Workspace() { ::operator delete(data, std::align_val_t{256}); }
  size_t size;
  void* data;
};

cudaStream_t stream_of_test() { return reinterpret_cast<cudaStream_t>(0x5eed); }

#if EK_V3
template <class T>
T* capability(IPluginV3& plugin, PluginCapabilityType type) {
  auto* found = static_cast<T*>(plugin.getCapabilityInterface(type));
  require(found, "a capability is missing");
  return found;
}

std::string run(const char* path, const Problem& problem, const char* name_space, bool wide) {
  Creator& creator = creator_of(path, problem.name, name_space);
  require(creator.getPluginVersion() == std::string("1"), "the version");
  const NodeFields fields(problem, wide);
  std::unique_ptr<IPluginV3> made(creator.createPlugin("node", &fields.collection, TensorRTPhase::kBUILD));
  require(made != nullptr, "no plug-in");
  std::unique_ptr<IPluginV3> built(made->clone());
  made.reset();
  auto* core = capability<IPluginV3OneCore>(*built, PluginCapabilityType::kCORE);
  require(core->getPluginName() == std::string(problem.name), "the name");
  require(core->getPluginNamespace() == std::string(name_space), "the name space");
  auto* build = capability<IPluginV3OneBuild>(*built, PluginCapabilityType::kBUILD);
  const Described arrays(problem);
  const int count = problem.count;
  require(build->getNbOutputs() == 1, "one output");
  require(build->configurePlugin(arrays.dynamic.data(), count, &arrays.dynamic[count], 1) == 0, "configured");
  require(build->configurePlugin(arrays.dynamic.data(), count + 1, &arrays.dynamic[count], 1) != 0,
          "configured with another number of inputs");
  check_dims(problem, [&](const DimsExprs* inputs) {
    DimsExprs output{};
    require(build->getOutputShapes(inputs, count, nullptr, 0, &output, 1, expressions) == 0, "shapes");
    return output;
  });
  DataType type{}, types[] = {arrays.plain[0].type, arrays.plain[0].type};
  require(build->getOutputDataTypes(&type, 1, types, count) == 0 && type == types[0], "types");
  check_formats(arrays, count, [&](int at, const Described& of) {
    return build->supportsFormatCombination(at, of.dynamic.data(), count, 1);
  });
  const Workspace workspace(build->getWorkspaceSize(arrays.dynamic.data(), count, &arrays.dynamic[count], 1));
  // The plan keeps the fields.
  const PluginFieldCollection* kept =
      capability<IPluginV3OneRuntime>(*built, PluginCapabilityType::kRUNTIME)->getFieldsToSerialize();
  std::unique_ptr<IPluginV3> loaded(creator.createPlugin("node", kept, TensorRTPhase::kRUNTIME));
  built.reset();
  require(loaded != nullptr, "no plug-in of a plan");
  std::unique_ptr<IPluginV3> attached(
      capability<IPluginV3OneRuntime>(*loaded, PluginCapabilityType::kRUNTIME)->attachToContext(nullptr));
  require(attached != nullptr, "no plug-in of a context");
  auto* runtime = capability<IPluginV3OneRuntime>(*attached, PluginCapabilityType::kRUNTIME);
  require(runtime->onShapeChange(arrays.plain.data(), count, &arrays.plain[count], 1) == 0, "a shape");
  const void* inputs[] = {problem.inputs[0].data, problem.inputs[1].data};
  void* output = problem.output.data;
  const int32_t code = runtime->enqueue(arrays.plain.data(), &arrays.plain[count], inputs, &output,
                                        workspace.data, stream_of_test());
  require(code == 0, "enqueue");
  return std::to_string(workspace.size);
}
#else
struct Destroy {
  void operator()(IPluginV2* plugin) const { plugin->destroy(); }
};
using Owned = std::unique_ptr<IPluginV2DynamicExt, Destroy>;

Owned own(IPluginV2* plugin, const char* what) {
  require(plugin, what);
  return Owned(static_cast<IPluginV2DynamicExt*>(plugin));
}

std::string run(const char* path, const Problem& problem, const char* name_space, bool wide) {
  Creator& creator = creator_of(path, problem.name, name_space);
  require(creator.getPluginVersion() == std::string("1"), "the version");
  const NodeFields fields(problem, wide);
  Owned made = own(creator.createPlugin("node", &fields.collection), "no plug-in");
  Owned built = own(made->clone(), "no clone");
  made.reset();
  require(built->getPluginType() == std::string(problem.name), "the name");
  require(built->getPluginNamespace() == std::string(name_space), "the name space");
  const Described arrays(problem);
  const int count = problem.count;
  require(built->getNbOutputs() == 1, "one output");
  check_dims(problem, [&](const DimsExprs* inputs) {
    return built->getOutputDimensions(0, inputs, count, expressions);
  });
  const DataType types[] = {arrays.plain[0].type, arrays.plain[0].type};
  require(built->getOutputDataType(0, types, count) == types[0], "types");
  check_formats(arrays, count, [&](int at, const Described& of) {
    return built->supportsFormatCombination(at, of.plain.data(), count, 1);
  });
  built->configurePlugin(arrays.dynamic.data(), count, &arrays.dynamic[count], 1);
  const Workspace workspace(built->getWorkspaceSize(arrays.plain.data(), count, &arrays.plain[count], 1));
  std::vector<char> plan(built->getSerializationSize());
  built->serialize(plan.data());
  built.reset();
  require(!creator.deserializePlugin("node", plan.data(), plan.size() - 1), "a plan that is too short");
  logged.clear();
  Owned loaded = own(creator.deserializePlugin("node", plan.data(), plan.size()), "no plug-in of a plan");
  require(loaded->initialize() == 0, "initialize");
  const void* inputs[] = {problem.inputs[0].data, problem.inputs[1].data};
  void* output = problem.output.data;
  const int32_t code = loaded->enqueue(arrays.plain.data(), &arrays.plain[count], inputs, &output,
                                       workspace.data, stream_of_test());
  loaded->terminate();
  require(code == 0, "enqueue");
  return std::to_string(workspace.size);
}
#endif

template <class Task>
int said(char* text, int size, const Task& task) {
  logged.clear();
  std::string result;
  int good = 1;
  try {
    result = task();
  } catch (const std::exception& error) {
    result = error.what();
    good = 0;
  }
  std::snprintf(text, static_cast<size_t>(size), "%s", result.c_str());
  return good;
}

}  // namespace

extern "C" {

// Whether a problem ran in a plug-in of the library; `text` is then its bytes of workspace, else why not.
int run_plugin(const char* path, const Problem* problem, const char* name_space, int wide, char* text,
               int size) {
  return said(text, size, [&] { return run(path, *problem, name_space, wide != 0); });
}

// A line for every creator: name space, name, version, then its fields and their types.
int list_creators(const char* path, char* text, int size) {
  return said(text, size, [&] {
    std::string lines;
    for (Creator* creator : creators_of(open_library(path))) {
      lines += "'" + std::string(creator->getPluginNamespace()) + "' " + creator->getPluginName() + " " +
               creator->getPluginVersion();
      const PluginFieldCollection& fields = *creator->getFieldNames();
      for (int32_t i = 0; i < fields.nbFields; ++i) {
        lines += std::string(" ") + fields.fields[i].name + ":" +
                 std::to_string(static_cast<int32_t>(fields.fields[i].type));
      }
      lines += "\n";
    }
    return lines;
  });
}
}
