// The operators in ONNX Runtime: a library for SessionOptions.register_custom_ops_library. The tensors of the
// runtime are read and written in place, by the threads of its session.
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "hosts/onnxruntime_abi.h"
#include "hosts/operators.h"

namespace ek {
namespace ort {
namespace {

using hosts::Array;
using hosts::Kind;
using hosts::Operator;
using hosts::Shape;
using hosts::Value;

// A failure of the runtime's own, which goes back to it as it is.
struct Failed {
  OrtStatus* status;
};

// The runtime's functions; those that can fail throw Failed.
class Api {
 public:
  explicit Api(const void* table) : table_(table) {}

  template <class Function, class... Args>
  void call(Args... args) const {
    if (OrtStatus* status = Function::in(table_)(args...)) throw Failed{status};
  }

  // Whether a node has an attribute. One of another type is an Error.
  template <class Function, class... Args>
  bool attribute(const OrtKernelInfo* info, const char* name, Args... args) const {
    OrtStatus* status = Function::in(table_)(info, name, args...);
    if (!status) return true;
    const std::string message = GetErrorMessage::in(table_)(status);
    ReleaseStatus::in(table_)(status);
    require(message.find("No attribute") != std::string::npos,
            "attribute " + std::string(name) + ": " + message);
    return false;
  }

  // Runs `task`, and makes of what it throws what the runtime wants to know.
  template <class Task>
  OrtStatus* guarded(const Task& task) const {
    try {
      task();
      return nullptr;
    } catch (const Failed& failed) {
      return failed.status;
    } catch (const Error& error) {
      return CreateStatus::in(table_)(kInvalidArgument, error.what());
    } catch (const std::exception& error) {
      return CreateStatus::in(table_)(kFail, error.what());
    }
  }

  void release(OrtTensorTypeAndShapeInfo* info) const { ReleaseTensorTypeAndShapeInfo::in(table_)(info); }

 private:
  const void* table_;
};

Shape shape_of(const Api& api, const OrtTensorTypeAndShapeInfo* info) {
  size_t rank = 0;
  api.call<GetDimensionsCount>(info, &rank);
  std::vector<int64_t> lengths(rank);
  api.call<GetDimensions>(info, lengths.data(), rank);
  return {static_cast<int64_t>(rank), lengths.data()};
}

// Type and shape of a tensor, given back at the end.
class Info {
 public:
  explicit Info(const Api& api) : api_(api) {}
  Info(const Info&) = delete;
  Info& operator=(const Info&) = delete;
  ~Info() {
    if (info) api_.release(info);
  }

  OrtTensorTypeAndShapeInfo* info = nullptr;

 private:
  const Api& api_;
};

// An operator for one type, as the runtime sees it.
struct TypedOperator : CustomOp {
  const Operator* op;
  Type type;
  const Api* api;
};

// A node of a session.
struct Node {
  Api api;
  const Operator* op;
  Type type;
  Isa isa;
  std::vector<Value> values;
};

const TypedOperator& typed(const CustomOp* op) { return *static_cast<const TypedOperator*>(op); }

int element_type(const CustomOp* op, size_t) {
  return typed(op).type == Type::kFloat16 ? kElementFloat16 : kElementFloat;
}

// An attribute of a node, or its default. Throws Error.
Value read(const Api& api, const OrtKernelInfo* info, const hosts::Attribute& attribute) {
  Value value = attribute.value;
  bool found = false;
  if (attribute.kind == Kind::kInt) {
    found = api.attribute<KernelInfoGetAttribute_int64>(info, attribute.name, &value.i);
  } else if (attribute.kind == Kind::kFloat) {
    found = api.attribute<KernelInfoGetAttribute_float>(info, attribute.name, &value.f);
  } else {
    size_t size = 0;  // with the zero at the end
    char* nothing = nullptr;
    found = api.attribute<KernelInfoGetAttribute_string>(info, attribute.name, nothing, &size);
    if (found) {
      value.s.resize(size);
      api.call<KernelInfoGetAttribute_string>(info, attribute.name, value.s.data(), &size);
      value.s.resize(size - 1);
    }
  }
  require(found || !attribute.required, std::string("attribute ") + attribute.name + " is missing");
  return value;
}

OrtStatus* create_node(const CustomOp* custom, const void* table, const OrtKernelInfo* info, void** out) {
  const Api api(table);
  return api.guarded([&] {
    const Operator& op = *typed(custom).op;
    std::unique_ptr<Node> node(new Node{api, &op, typed(custom).type, hosts::chosen_isa(), {}});
    hosts::named(op, [&] {
      for (const hosts::Attribute& attribute : op.attributes) {
        node->values.push_back(read(api, info, attribute));
      }
    });
    hosts::check_values(op, node->values.data());
    *out = node.release();
  });
}

void destroy_node(void* node) { delete static_cast<Node*>(node); }

struct Loop {
  RangeFn fn;
  const void* context;
};

void run_task(void* data, size_t index) {
  const Loop& loop = *static_cast<const Loop*>(data);
  const auto task = static_cast<int64_t>(index);
  loop.fn(loop.context, task, task + 1);
}

struct Threads {
  const Api& api;
  const OrtKernelContext* context;
};

void run_parallel(void* state, int64_t count, RangeFn fn, const void* context) {
  const Threads& threads = *static_cast<const Threads*>(state);
  Loop loop{fn, context};
  const size_t batches = 0;  // no limit
  threads.api.call<KernelContext_ParallelFor>(threads.context, run_task, static_cast<size_t>(count), batches,
                                              static_cast<void*>(&loop));
}

Array input_at(const Api& api, OrtKernelContext* context, size_t index, Type type) {
  const OrtValue* value = nullptr;
  api.call<KernelContext_GetInput>(context, index, &value);
  Info info(api);
  api.call<GetTensorTypeAndShape>(value, &info.info);
  Array array;
  array.type = type;
  array.shape = shape_of(api, info.info);
  api.call<GetTensorMutableData>(const_cast<OrtValue*>(value), &array.data);
  return array;
}

OrtStatus* compute(void* kernel, OrtKernelContext* context) {
  const Node& node = *static_cast<const Node*>(kernel);
  return node.api.guarded([&] {
    Array inputs[hosts::kMaxInputs];
    Shape shapes[hosts::kMaxInputs];
    for (size_t i = 0; i < node.op->inputs.size(); ++i) {
      inputs[i] = input_at(node.api, context, i, node.type);
      shapes[i] = inputs[i].shape;
    }
    Threads threads{node.api, context};
    hosts::Call call;
    call.inputs = inputs;
    call.values = node.values.data();
    call.isa = node.isa;
    call.parallel = {run_parallel, &threads, 0};
    call.output.type = node.type;
    call.output.shape = hosts::shape_of(*node.op, shapes);
    const Shape& shape = call.output.shape;
    OrtValue* value = nullptr;
    node.api.call<KernelContext_GetOutput>(context, size_t{0}, shape.dims, static_cast<size_t>(shape.rank),
                                           &value);
    node.api.call<GetTensorMutableData>(value, &call.output.data);
    hosts::run(*node.op, call);
  });
}

// Says the output's shape where all of its lengths are known; the runtime finds the others when it runs. It
// asks one of the typed operators for all types.
OrtStatus* infer_shape(const CustomOp* custom, OrtShapeInferContext* context) {
  const Api& api = *typed(custom).api;
  return api.guarded([&] {
    const Operator& op = *typed(custom).op;
    Shape shapes[hosts::kMaxInputs];
    int element = 0;
    for (size_t i = 0; i < op.inputs.size(); ++i) {
      OrtTensorTypeAndShapeInfo* info = nullptr;  // stays the context's
      api.call<ShapeInferContext_GetInputTypeShape>(context, i, &info);
      api.call<GetTensorElementType>(info, &element);
      shapes[i] = shape_of(api, info);
      if (shapes[i].rank == 0) return;
    }
    const Shape out = hosts::shape_of(op, shapes);
    if (!out.is_known()) return;
    const size_t rank = static_cast<size_t>(out.rank);
    const char* names[hosts::kMaxRank] = {"", "", "", "", ""};
    Info info(api);
    api.call<CreateTensorTypeAndShapeInfo>(&info.info);
    api.call<SetTensorElementType>(info.info, element);
    api.call<SetDimensions>(info.info, out.dims, rank);
    api.call<SetSymbolicDimensions>(info.info, names, rank);
    api.call<ShapeInferContext_SetOutputTypeShape>(context, size_t{0}, info.info);
  });
}

TypedOperator describe(const Api& api, const Operator& op, Type type) {
  TypedOperator custom{};
  custom.op = &op;
  custom.type = type;
  custom.api = &api;
  custom.version = kApiVersion;
  custom.get_name = [](const CustomOp* self) { return typed(self).op->name; };
  custom.get_provider = [](const CustomOp*) -> const char* { return nullptr; };  // the CPU's
  custom.get_input_type = element_type;
  custom.get_input_count = [](const CustomOp* self) { return typed(self).op->inputs.size(); };
  custom.get_output_type = element_type;
  custom.get_output_count = [](const CustomOp*) { return size_t{1}; };
  custom.get_input_characteristic = [](const CustomOp*, size_t) { return 0; };   // required
  custom.get_output_characteristic = [](const CustomOp*, size_t) { return 0; };  // required
  custom.get_input_memory_type = [](const CustomOp*, size_t) { return 0; };      // the default
  custom.create_kernel_v2 = create_node;
  custom.compute_v2 = compute;
  custom.destroy = destroy_node;
  custom.infer_output_shape = infer_shape;
  custom.get_start_version = [](const CustomOp*) { return hosts::kVersion; };
  custom.get_end_version = [](const CustomOp*) { return hosts::kVersion; };
  return custom;
}

// The domain with all operators. It has to outlive every session, so it is never freed.
struct Domain {
  explicit Domain(const void* table) : api(table) {
    for (const Operator& op : hosts::operators()) {
      for (Type type : {Type::kFloat32, Type::kFloat16}) operators.push_back(describe(api, op, type));
    }
    api.call<CreateCustomOpDomain>(hosts::kDomain, &domain);
    for (const TypedOperator& op : operators) {
      api.call<CustomOpDomain_Add>(domain, static_cast<const CustomOp*>(&op));
    }
  }

  Api api;
  std::vector<TypedOperator> operators;
  OrtCustomOpDomain* domain = nullptr;
};

}  // namespace
}  // namespace ort
}  // namespace ek

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options,
                                                                               const ek::ort::ApiBase* base) {
  using namespace ek::ort;
  const void* table = base->get_api(kApiVersion);
  if (!table) {
    const std::string message = std::string("edgekit: want ONNX Runtime 1.17 or newer, got ") +
                                base->get_version() + ": pip install 'edgekit[onnxruntime]'";
    return CreateStatus::in(base->get_api(1))(kFail, message.c_str());
  }
  const Api api(table);
  return api.guarded([&] {
    static const Domain& domain = *new Domain(table);
    api.call<AddCustomOpDomain>(options, domain.domain);
  });
}
