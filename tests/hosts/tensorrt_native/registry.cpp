// Hands the plug-ins to the registry of a real TensorRT, and asks it for each of them in both name spaces:
//     registry TENSORRT PLUGINS
// No GPU is needed for that, and none for a plug-in that is made of its fields.
#include <NvInfer.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

namespace {

using namespace nvinfer1;

void* open(const char* path) {
  void* library = dlopen(path, RTLD_NOW | RTLD_GLOBAL);
  if (!library) std::fprintf(stderr, "%s\n", dlerror()), std::exit(2);
  return library;
}

template <class Function>
Function* find(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

// Fields that every operator can be made of: what has no default.
struct Fields {
  Fields() {
    for (PluginField& field : fields)
      field.type = PluginFieldType::kFLOAT32, field.data = &one, field.length = 1;
  }
  const PluginFieldCollection* of(const std::string& name) {
    collection.nbFields = 0;
    collection.fields = fields;
    if (name == "NonLocalMeans") add("sigma", PluginFieldType::kFLOAT32, &one);
    if (name == "Bilateral") {
      add("sigma_space", PluginFieldType::kFLOAT32, &one);
      add("sigma_range", PluginFieldType::kFLOAT32, &one);
      add("radius", PluginFieldType::kINT32, &two);
    }
    return &collection;
  }
  void add(const char* name, PluginFieldType type, const void* data) {
    fields[collection.nbFields++] = PluginField{name, data, type, 1};
  }

  float one = 1.0f;
  int32_t two = 2;
  PluginField fields[3];
  PluginFieldCollection collection{};
};

bool made(IPluginRegistry& registry, const char* name, const char* name_space) {
  Fields fields;
#if NV_TENSORRT_MAJOR >= 10
  IPluginCreatorInterface* creator = registry.getCreator(name, "1", name_space);
  if (!creator) return false;
  const std::unique_ptr<IPluginV3> plugin(static_cast<IPluginCreatorV3One*>(creator)->createPlugin(
      "node", fields.of(name), TensorRTPhase::kBUILD));
  return plugin != nullptr;
#else
  IPluginCreator* creator = registry.getPluginCreator(name, "1", name_space);
  if (!creator) return false;
  IPluginV2* plugin = creator->createPlugin("node", fields.of(name));
  if (plugin) plugin->destroy();
  return plugin != nullptr;
#endif
}

}  // namespace

int main(int, char** paths) {
  void* tensorrt = open(paths[1]);
  // 8503, 110400: a library has what headers up to its version say.
  const int32_t version = find<int32_t()>(tensorrt, "getInferLibVersion")(),
                unit = version < 10000 ? 1000 : 10000;
  if (version / unit != NV_TENSORRT_MAJOR || version % unit / 100 < NV_TENSORRT_MINOR) {
    std::printf("other headers\n");
    return 0;
  }
  IPluginRegistry* registry = find<IPluginRegistry*()>(tensorrt, "getPluginRegistry")();
#if NV_TENSORRT_MAJOR * 100 + NV_TENSORRT_MINOR >= 806
  if (!registry->loadLibrary(paths[2])) std::printf("the library is refused\n");
#endif
  // Of what is there it takes nothing again.
  using Register = int32_t(IPluginRegistry*);
  if (auto* add = find<Register>(open(paths[2]), "edgekit_trt_register"))
    std::printf("%d taken\n", add(registry));
  for (const char* name_space : {"", "edgekit", "elsewhere"}) {
    for (const char* name : {"Warp", "Compose", "IntegrateVelocity", "GridSample3d", "JacobianDeterminant",
                             "NonLocalMeans", "Bilateral"}) {
      std::printf("'%s' %s %s\n", name_space, name, made(*registry, name, name_space) ? "made" : "unknown");
    }
  }
}
