#include "hosts/operators.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "hosts/denoising.h"
#include "hosts/registration.h"

namespace ek {
namespace hosts {
namespace {

std::string text(const Shape& shape) {
  std::string found;
  for (int i = 0; i < shape.rank; ++i) found += (i ? ", " : "") + std::to_string(shape.dims[i]);
  return "[" + found + "]";
}

std::atomic<const void*> last_call[kMaxInputs + 1];

}  // namespace

Shape::Shape(std::initializer_list<int64_t> lengths)
    : Shape(static_cast<int64_t>(lengths.size()), lengths.begin()) {}

Shape::Shape(int64_t count, const int64_t* lengths) {
  require(count <= kMaxRank, "an array has " + std::to_string(count) + " axes, at most 5 are supported");
  rank = static_cast<int>(count);
  for (int i = 0; i < rank; ++i) dims[i] = lengths[i];
}

int64_t Shape::elements() const {
  int64_t product = 1;
  for (int i = 0; i < rank; ++i) product *= dims[i];
  return product;
}

bool Shape::is_known() const {
  return std::all_of(dims, dims + rank, [](int64_t n) { return n >= 0; });
}

bool Shape::operator==(const Shape& other) const {
  return rank == other.rank && std::equal(dims, dims + rank, other.dims);
}

const std::vector<Operator>& operators() {
  static const std::vector<Operator> table = [] {
    std::vector<Operator> all = registration_operators();
    for (Operator& op : denoising_operators()) all.push_back(std::move(op));
    return all;
  }();
  return table;
}

const Operator* find_operator(const std::string& name) {
  for (const Operator& op : operators()) {
    if (name == op.name) return &op;
  }
  return nullptr;
}

Shape shape_of(const Operator& op, const Shape* inputs) {
  Shape found;
  named(op, [&] { found = op.shape(inputs); });
  return found;
}

void check_values(const Operator& op, const Value* values) {
  named(op, [&] {
    for (size_t i = 0; i < op.attributes.size(); ++i) op.attributes[i].check(values[i]);
  });
}

void check_call(const Operator& op, const Call& call) {
  named(op, [&] {
    Shape shapes[kMaxInputs];
    for (size_t i = 0; i < op.inputs.size(); ++i) {
      const Array& input = call.inputs[i];
      require(input.type == Type::kFloat32 || input.type == Type::kFloat16,
              std::string(op.inputs[i]) + " must be float32 or float16");
      require(input.type == call.output.type, "inputs and output must be of one type");
      shapes[i] = input.shape;
    }
    const Shape wanted = op.shape(shapes);
    require(wanted == call.output.shape,
            "the output must be " + text(wanted) + ", got " + text(call.output.shape));
  });
}

void run(const Operator& op, const Call& call) {
  check_call(op, call);
  named(op, [&] {
    const size_t inputs = op.inputs.size();
    for (size_t i = 0; i < inputs; ++i) last_call[i].store(call.inputs[i].data, std::memory_order_relaxed);
    last_call[inputs].store(call.output.data, std::memory_order_relaxed);
    op.run(call);
  });
}

Isa chosen_isa() {
  static const Isa isa = [] {
    const char* forced = std::getenv("EDGEKIT_ISA");
    try {
      return choose_isa(forced ? forced : "");
    } catch (const Error& error) {
      throw Error(std::string("EDGEKIT_ISA: ") + error.what());
    }
  }();
  return isa;
}

}  // namespace hosts
}  // namespace ek

void edgekit_last_call(const void* pointers[3]) {
  for (int i = 0; i <= ek::hosts::kMaxInputs; ++i) {
    pointers[i] = ek::hosts::last_call[i].load(std::memory_order_relaxed);
  }
}
