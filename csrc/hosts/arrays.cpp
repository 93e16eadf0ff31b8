#include "hosts/arrays.h"

#include <algorithm>

#include "common/half.h"

namespace ek {
namespace hosts {
namespace {

constexpr int64_t kPiece = 1 << 16;

struct Conversion {
  const void* from;
  void* to;
  int64_t count;
};

void widen(const void* context, int64_t begin, int64_t end) {
  const auto& job = *static_cast<const Conversion*>(context);
  const auto* from = static_cast<const Half*>(job.from);
  auto* to = static_cast<float*>(job.to);
  const int64_t last = std::min(end * kPiece, job.count);
  for (int64_t i = begin * kPiece; i < last; ++i) to[i] = half_to_float(from[i]);
}

void narrow(const void* context, int64_t begin, int64_t end) {
  const auto& job = *static_cast<const Conversion*>(context);
  const auto* from = static_cast<const float*>(job.from);
  auto* to = static_cast<Half*>(job.to);
  const int64_t last = std::min(end * kPiece, job.count);
  for (int64_t i = begin * kPiece; i < last; ++i) to[i] = float_to_half(from[i]);
}

void convert(RangeFn fn, const void* from, void* to, int64_t count, const Parallel& parallel) {
  const Conversion job{from, to, count};
  parallel((count + kPiece - 1) / kPiece, fn, &job);
}

int64_t wide_bytes(const Array& array) {
  return array.type == Type::kFloat32 ? 0 : array.shape.elements() * size_of(Type::kFloat32);
}

}  // namespace

int dims_of(const Shape& shape) { return shape.rank - 2; }

Tensor planar(const Array& array) {
  const Shape& shape = array.shape;
  Tensor tensor;
  tensor.data = array.data;
  tensor.type = array.type;
  tensor.n = shape.dims[0];
  tensor.c = shape.dims[1];
  tensor.d = shape.rank == 5 ? shape.dims[2] : 1;
  tensor.h = shape.dims[shape.rank - 2];
  tensor.w = shape.dims[shape.rank - 1];
  return tensor;
}

Tensor innermost(const Array& array) {
  const Shape& shape = array.shape;
  Tensor tensor;
  tensor.data = array.data;
  tensor.type = array.type;
  tensor.channels_last = true;
  tensor.n = shape.dims[0];
  tensor.d = shape.dims[1];
  tensor.h = shape.dims[2];
  tensor.w = shape.dims[3];
  tensor.c = shape.dims[4];
  return tensor;
}

Boundary boundary_of(const std::string& name) {
  if (name == "zero") return Boundary::kZero;
  if (name == "edge") return Boundary::kEdge;
  if (name == "mirror") return Boundary::kMirror;
  if (name == "reflect") return Boundary::kReflect;
  if (name == "wrap") return Boundary::kWrap;
  throw Error("boundary must be 'zero', 'edge', 'mirror', 'reflect' or 'wrap', got '" + name + "'");
}

int order_of_mode(const std::string& name) {
  if (name == "nearest") return 0;
  if (name == "linear" || name == "bilinear") return 1;
  if (name == "cubic") return 3;
  throw Error("mode must be 'nearest', 'linear' (or 'bilinear') or 'cubic', got '" + name + "'");
}

Boundary boundary_of_padding(const std::string& padding, int order, bool align_corners) {
  if (padding == "zeros") return Boundary::kZero;
  if (padding == "border") return Boundary::kEdge;
  require(padding == "reflection",
          "padding must be 'zeros', 'border' or 'reflection', got '" + padding + "'");
  // Folded coordinates need no more than clamping, but for the taps of a cubic.
  if (order != 3) return Boundary::kEdge;
  return align_corners ? Boundary::kMirror : Boundary::kReflect;
}

void check_boundary(const Value& value) { boundary_of(value.s); }

Widened::Widened(const Array& array, const Parallel& parallel)
    : memory_(1, wide_bytes(array)), array_(array) {
  if (array.type == Type::kFloat32) return;
  array_.type = Type::kFloat32;
  array_.data = memory_.workspace.data;
  convert(widen, array.data, array_.data, array.shape.elements(), parallel);
}

Narrowed::Narrowed(const Array& array) : memory_(1, wide_bytes(array)), array_(array), wide_(array) {
  if (array.type == Type::kFloat32) return;
  wide_.type = Type::kFloat32;
  wide_.data = memory_.workspace.data;
}

void Narrowed::finish(const Parallel& parallel) const {
  if (array_.type == Type::kFloat32) return;
  convert(narrow, wide_.data, array_.data, array_.shape.elements(), parallel);
}

}  // namespace hosts
}  // namespace ek
