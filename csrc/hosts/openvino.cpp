// The operators in OpenVINO: a library for Core.add_extension. Tensors are read and written in place, by the
// threads of the compiled model. It fits the one release that it is built with the headers of.
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>
#include <tbb/task_arena.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "hosts/operators.h"
#include "openvino/core/op_extension.hpp"
#include "openvino/frontend/onnx/extension/conversion.hpp"
#include "openvino/op/convert.hpp"
#include "openvino/op/grid_sample.hpp"
#include "openvino/op/op.hpp"

namespace ek {
namespace openvino {
namespace {

using hosts::Array;
using hosts::Kind;
using hosts::Operator;
using hosts::Shape;
using hosts::Value;
using ov::frontend::NodeContext;
using Inputs = ov::OutputVector;

// An exception of OpenVINO's, without the file and the line that its own macros put in front.
class Refused : public ov::Exception {
 public:
  explicit Refused(const std::string& message) : ov::Exception(message) {}
};

// Runs `task`, and makes of an Error what OpenVINO reports. Its message stays as it is.
template <class Task>
auto guarded(const Task& task) {
  try {
    return task();
  } catch (const Error& error) {
    throw Refused(error.what());
  }
}

// Under which name OpenVINO's own form of a network finds the operators. A process may hold several of these
// libraries, and of those that give one name OpenVINO takes the first: so whoever loads several names each.
std::string& opset() {
  static std::string& name = *new std::string(hosts::kDomain);
  return name;
}

// Name and opset of an operator's nodes, by which OpenVINO tells them apart. Like the library, never freed.
const ov::DiscreteTypeInfo& type_info(const Operator& op) {
  static const auto& all = *[] {
    auto* made = new std::vector<ov::DiscreteTypeInfo>;
    const char* name = (new std::string(opset()))->c_str();
    for (const Operator& each : hosts::operators())
      made->emplace_back(each.name, name, &ov::op::Op::get_type_info_static());
    for (ov::DiscreteTypeInfo& info : *made) info.hash();
    return made;
  }();
  return all[static_cast<size_t>(&op - hosts::operators().data())];
}

bool is_taken(const ov::element::Type& type) { return type == ov::element::f32 || type == ov::element::f16; }

Shape shape_of(const ov::PartialShape& given) {
  std::vector<int64_t> lengths;
  for (const ov::Dimension& length : given)
    lengths.push_back(length.is_static() ? length.get_length() : int64_t{-1});
  return {static_cast<int64_t>(lengths.size()), lengths.data()};
}

ov::PartialShape partial(const Shape& shape) {
  std::vector<ov::Dimension> lengths;
  for (int i = 0; i < shape.rank; ++i)
    lengths.push_back(shape.dims[i] < 0 ? ov::Dimension::dynamic() : ov::Dimension(shape.dims[i]));
  return lengths;
}

Array array_of(const ov::Tensor& tensor) {
  Array array;
  array.data = const_cast<void*>(static_cast<const void*>(tensor.data()));
  array.type = tensor.get_element_type() == ov::element::f16 ? Type::kFloat16 : Type::kFloat32;
  const ov::Shape shape = tensor.get_shape();
  const std::vector<int64_t> lengths(shape.begin(), shape.end());
  array.shape = {static_cast<int64_t>(lengths.size()), lengths.data()};
  return array;
}

// In the arena that evaluate() is called in, which is as large as INFERENCE_NUM_THREADS says.
void run_parallel(void*, int64_t count, RangeFn fn, const void* context) {
  tbb::parallel_for(tbb::blocked_range<int64_t>(0, count), [=](const tbb::blocked_range<int64_t>& tasks) {
    fn(context, tasks.begin(), tasks.end());
  });
}

// A node of any operator: what get_type_info says is all that OpenVINO tells classes apart by.
class Node : public ov::op::Op {
 public:
  // Without inputs yet, and with the attributes' defaults.
  explicit Node(const Operator& op) : op_(op) {
    for (const hosts::Attribute& attribute : op.attributes) values_.push_back(attribute.value);
  }

  Node(const Operator& op, std::vector<Value> values, const Inputs& inputs)
      : Op(inputs), op_(op), values_(std::move(values)) {
    constructor_validate_and_infer_types();
  }

  const ov::DiscreteTypeInfo& get_type_info() const override { return type_info(op_); }

  std::shared_ptr<ov::Node> clone_with_new_inputs(const Inputs& inputs) const override {
    return std::make_shared<Node>(op_, values_, inputs);
  }

  bool visit_attributes(ov::AttributeVisitor& visitor) override {
    for (size_t i = 0; i < values_.size(); ++i) {
      const hosts::Attribute& attribute = op_.attributes[i];
      if (attribute.kind == Kind::kInt) {
        visitor.on_attribute(attribute.name, values_[i].i);
      } else if (attribute.kind == Kind::kFloat) {
        visitor.on_attribute(attribute.name, values_[i].f);
      } else {
        visitor.on_attribute(attribute.name, values_[i].s);
      }
    }
    return true;
  }

  void validate_and_infer_types() override {
    guarded([&] {
      hosts::named(op_, [&] { check_inputs(); });
      hosts::check_values(op_, values_.data());
      set_output_type(0, get_input_element_type(0), output_shape());
    });
  }

  bool has_evaluate() const override { return is_taken(get_output_element_type(0)); }

  using Op::evaluate;
  bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
    return guarded([&] {
      Array arrays[hosts::kMaxInputs];
      Shape shapes[hosts::kMaxInputs];
      for (size_t i = 0; i < op_.inputs.size(); ++i) {
        if (!is_taken(inputs[i].get_element_type())) return false;
        arrays[i] = array_of(inputs[i]);
        shapes[i] = arrays[i].shape;
      }
      const Shape out = hosts::shape_of(op_, shapes);
      outputs[0].set_shape(ov::Shape(out.dims, out.dims + out.rank));
      hosts::Call call;
      call.inputs = arrays;
      call.output = array_of(outputs[0]);
      call.values = values_.data();
      call.isa = hosts::chosen_isa();
      call.parallel = {run_parallel, nullptr, tbb::this_task_arena::max_concurrency()};
      hosts::run(op_, call);
      return true;
    });
  }

 private:
  void check_inputs() const {
    const size_t count = op_.inputs.size();
    require(get_input_size() == count,
            "want " + std::to_string(count) + " inputs, got " + std::to_string(get_input_size()));
    for (size_t i = 0; i < count; ++i) {
      const ov::element::Type& type = get_input_element_type(i);
      require(type.is_dynamic() || is_taken(type),
              std::string(op_.inputs[i]) + " must be float32 or float16, got " + type.get_type_name());
      require(type == get_input_element_type(0), "inputs must be of one type");
    }
  }

  ov::PartialShape output_shape() const {
    Shape shapes[hosts::kMaxInputs];
    for (size_t i = 0; i < op_.inputs.size(); ++i) {
      const ov::PartialShape& given = get_input_partial_shape(i);
      if (given.rank().is_dynamic()) return ov::PartialShape::dynamic();
      shapes[i] = shape_of(given);
    }
    return partial(hosts::shape_of(op_, shapes));
  }

  const Operator& op_;
  std::vector<Value> values_;
};

// How a node is made from OpenVINO's own form.
class Extension : public ov::BaseOpExtension {
 public:
  explicit Extension(const Operator& op) : op_(op) {}

  const ov::DiscreteTypeInfo& get_type_info() const override { return type_info(op_); }

  Inputs create(const Inputs& inputs, ov::AttributeVisitor& visitor) const override {
    const auto node = std::make_shared<Node>(op_);
    node->set_arguments(inputs);
    node->visit_attributes(visitor);
    node->constructor_validate_and_infer_types();
    return node->outputs();
  }

  std::vector<ov::Extension::Ptr> get_attached_extensions() const override { return {}; }

 private:
  const Operator& op_;
};

Inputs inputs_of(const NodeContext& node) {
  Inputs inputs;
  for (size_t i = 0; i < node.get_input_size(); ++i) inputs.push_back(node.get_input(static_cast<int>(i)));
  return inputs;
}

Value read(const NodeContext& node, const hosts::Attribute& attribute) {
  Value value = attribute.value;
  if (!node.has_attribute(attribute.name)) {
    require(!attribute.required, std::string("attribute ") + attribute.name + " is missing");
  } else if (attribute.kind == Kind::kInt) {
    value.i = node.get_attribute<int64_t>(attribute.name);
  } else if (attribute.kind == Kind::kFloat) {
    value.f = node.get_attribute<float>(attribute.name);
  } else {
    value.s = node.get_attribute<std::string>(attribute.name);
  }
  return value;
}

std::vector<Value> values_of(const NodeContext& node, const Operator& op) {
  std::vector<Value> values;
  guarded([&] {
    hosts::named(op, [&] {
      for (const hosts::Attribute& attribute : op.attributes) values.push_back(read(node, attribute));
    });
  });
  return values;
}

ov::Output<ov::Node> cast(const ov::Output<ov::Node>& value, const ov::element::Type& type) {
  if (value.get_element_type() == type) return value;
  return std::make_shared<ov::op::v0::Convert>(value, type)->output(0);
}

// The standard GridSample of a volume. Where its types differ, or are float64, which OpenVINO's CPU computes
// in float32 anyway, it is computed in float32, and the result gets the type of the image. Modes have the
// names of operator set 16 or 20.
ov::Output<ov::Node> sample_volume(const NodeContext& node, const Inputs& inputs) {
  const Operator& op = *hosts::find_operator("GridSample3d");
  const ov::element::Type image = inputs[0].get_element_type(), grid = inputs[1].get_element_type();
  if (!image.is_real() || !grid.is_real())
    throw Refused("GridSample of a volume: want floating-point numbers, got " + image.get_type_name() +
                  " and " + grid.get_type_name());
  std::vector<Value> values = values_of(node, op);
  if (values[0].s == "bicubic") values[0].s = "cubic";
  const bool as_it_is = image == grid && is_taken(image);
  const Inputs taken =
      as_it_is ? inputs : Inputs{cast(inputs[0], ov::element::f32), cast(inputs[1], ov::element::f32)};
  return cast(std::make_shared<Node>(op, std::move(values), taken)->output(0), image);
}

// The standard GridSample of an image, as OpenVINO itself converts it.
ov::Output<ov::Node> sample_image(const NodeContext& node, const Inputs& inputs) {
  using ov::op::v9::GridSample;
  const auto mode = node.get_attribute<std::string>("mode", "linear");
  const auto padding = node.get_attribute<std::string>("padding_mode", "zeros");
  GridSample::Attributes attributes;
  attributes.align_corners = node.get_attribute<int64_t>("align_corners", 0) != 0;
  if (mode == "cubic" || mode == "bicubic") {
    attributes.mode = GridSample::InterpolationMode::BICUBIC;
  } else if (mode == "nearest") {
    attributes.mode = GridSample::InterpolationMode::NEAREST;
  } else if (mode != "linear" && mode != "bilinear") {
    throw Refused("GridSample: mode must be 'nearest', 'linear' or 'cubic', got '" + mode + "'");
  }
  if (padding == "border") {
    attributes.padding_mode = GridSample::PaddingMode::BORDER;
  } else if (padding == "reflection") {
    attributes.padding_mode = GridSample::PaddingMode::REFLECTION;
  } else if (padding != "zeros") {
    throw Refused("GridSample: padding_mode must be 'zeros', 'border' or 'reflection', got '" + padding +
                  "'");
  }
  return std::make_shared<GridSample>(inputs[0], inputs[1], attributes)->output(0);
}

bool is_volume(const ov::Output<ov::Node>& value) {
  const ov::Rank rank = value.get_partial_shape().rank();
  return rank.is_static() && rank.get_length() == 5;
}

// An image's where neither rank is known, as without us.
Inputs convert_grid_sample(const NodeContext& node) {
  const Inputs inputs = inputs_of(node);
  const bool volume = is_volume(inputs.at(0)) || is_volume(inputs.at(1));
  return {volume ? sample_volume(node, inputs) : sample_image(node, inputs)};
}

std::vector<ov::Extension::Ptr> extensions() {
  using ov::frontend::onnx::ConversionExtension;
  std::vector<ov::Extension::Ptr> all{
      std::make_shared<ConversionExtension>("GridSample", convert_grid_sample)};
  for (const Operator& op : hosts::operators()) {
    const auto converter = [&op](const NodeContext& node) {
      return std::make_shared<Node>(op, values_of(node, op), inputs_of(node))->outputs();
    };
    all.push_back(std::make_shared<ConversionExtension>(op.name, hosts::kDomain, converter));
    all.push_back(std::make_shared<Extension>(op));
  }
  return all;
}

}  // namespace
}  // namespace openvino
}  // namespace ek

// What Core.add_extension calls.
extern "C" __attribute__((visibility("default"))) void create_extensions(
    std::vector<ov::Extension::Ptr>& extensions) {
  extensions = ek::openvino::extensions();
}

// Names the opset of the operators, "edgekit" without it. To be called before they are registered: later it
// changes nothing.
extern "C" __attribute__((visibility("default"))) void edgekit_name_opset(const char* name) {
  ek::openvino::opset() = name;
}
