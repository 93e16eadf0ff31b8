// The table of operators that hosts call, with arrays as hosts have them: ranks, types and attributes that
// fit or do not.
#include "hosts/operators.h"
#include "tensors.h"

namespace test {
namespace {

using ek::hosts::Array;
using ek::hosts::Attribute;
using ek::hosts::Kind;
using ek::hosts::Operator;
using ek::hosts::Value;

// A value for an attribute, one in twenty of which there is not.
Value value_of(Source& source, const Attribute& attribute) {
  Value value = attribute.value;
  const std::string name = attribute.name;
  const bool wrong = source.one_in(20);
  if (attribute.kind == Kind::kInt) {
    value.i = wrong                     ? source.any<int64_t>({-1, 99, int64_t{1} << 40})
              : name == "align_corners" ? source.below(2)
                                        : 1;
    if (!wrong && name == "steps") value.i = source.between(0, 3);
    if (!wrong && name == "order") value.i = source.any<int64_t>({0, 1, 3});
  } else if (attribute.kind == Kind::kFloat) {
    value.f =
        wrong ? source.any({-1.0f, __builtin_nanf(""), __builtin_inff()}) : source.any({1.0f, 0.5f, 3.0f});
  } else if (wrong) {
    value.s = source.one_in(2) ? "" : "Edge";
  } else if (name == "boundary") {
    value.s = source.any({"zero", "edge", "mirror", "reflect", "wrap"});
  } else if (name == "mode") {
    value.s = source.any({"linear", "bilinear", "nearest", "cubic"});
  } else if (name == "padding_mode") {
    value.s = source.any({"zeros", "border", "reflection"});
  } else if (name == "method" && source.one_in(2)) {
    value.s = "blockwise";
  } else if (name == "noise" && source.one_in(2)) {
    value.s = "rician";
  }
  return value;
}

int64_t elements(const ek::hosts::Shape& shape) { return shape.rank > 0 ? shape.elements() : 0; }

// Shapes of inputs that go together.
std::vector<ek::hosts::Shape> shapes_for(Source& source, const Operator& op) {
  const bool grid = std::string(op.name) == "GridSample3d";
  const int dims = grid ? 3 : static_cast<int>(source.any({3, 2}));
  const std::string first = op.inputs[0];
  const bool field = first != "image";
  const int64_t n = source.between(1, 2), c = field ? dims : source.between(1, 3);
  const ek::Tensor image = shape(source, n, c, dims);
  const auto with = [&](int64_t channels) -> ek::hosts::Shape {
    if (dims == 2) return {n, channels, image.h, image.w};
    return {n, channels, image.d, image.h, image.w};
  };
  std::vector<ek::hosts::Shape> shapes{with(c)};
  if (grid) {
    shapes.push_back({n, source.between(1, 3), source.between(1, 4), source.between(1, 19), 3});
  } else if (op.inputs.size() == 2) {
    shapes.push_back(with(dims));
  }
  return shapes;
}

void spoil(Source& source, std::vector<ek::hosts::Shape>& shapes) {
  ek::hosts::Shape& shape = shapes[source.below(shapes.size())];
  switch (source.below(4)) {
    case 0:
      shape.rank -= 1;
      break;
    case 1:
      shape.dims[0] += 1;
      break;
    case 2:
      shape.dims[source.below(static_cast<uint64_t>(shape.rank))] = 0;
      break;
    default:
      shape.dims[1] += 7;
  }
}

void exercise(Source& source, Check& check) {
  const std::vector<Operator>& table = ek::hosts::operators();
  const Operator& op = table[source.below(table.size())];
  std::vector<Value> values;
  for (const Attribute& attribute : op.attributes) values.push_back(value_of(source, attribute));
  std::vector<ek::hosts::Shape> shapes = shapes_for(source, op);
  const bool bad = source.one_in(8);
  if (bad) spoil(source, shapes);
  const ek::Type type = source.any({ek::Type::kFloat32, ek::Type::kFloat16});
  std::vector<std::unique_ptr<Stored>> stored;
  Array inputs[ek::hosts::kMaxInputs];
  for (size_t i = 0; i < shapes.size(); ++i) {
    ek::Tensor flat;
    flat.n = flat.c = flat.d = flat.h = 1;
    flat.w = elements(shapes[i]);
    flat.type = type;
    stored.push_back(std::make_unique<Stored>(source, flat, 1.5f));
    inputs[i] = {stored[i]->data(), type, shapes[i]};
  }
  check.all([&](Run& run) {
    ek::hosts::check_values(op, values.data());
    ek::hosts::Call call;
    call.inputs = inputs;
    call.output.type = type;
    call.output.shape = ek::hosts::shape_of(op, shapes.data());
    call.output.data = output_like(run, type, elements(call.output.shape), 0);
    call.values = values.data();
    call.isa = run.isa;
    call.parallel = run.parallel;
    ek::hosts::run(op, call);
  });
}

const Register registered("hosts", exercise);

}  // namespace
}  // namespace test
