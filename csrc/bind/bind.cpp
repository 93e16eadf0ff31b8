#include "bind/bind.h"

namespace ek {
namespace bind {
namespace {

// Whether the array lies as [N, ..., C].
bool is_channels_last(const py::array& array) {
  int64_t stride = array.itemsize();
  if (array.shape(1) > 1 && array.strides(1) != stride) return false;
  stride *= array.shape(1);
  for (py::ssize_t axis = array.ndim() - 1; axis != 1; axis = axis == 2 ? 0 : axis - 1) {
    if (array.shape(axis) > 1 && array.strides(axis) != stride) return false;
    stride *= array.shape(axis);
    if (axis == 0) break;
  }
  return true;
}

}  // namespace

Type type_of(const std::string& label, const py::array& array) {
  const py::dtype type = array.dtype();
  const bool native = type.byteorder() != '>';
  if (native && type.kind() == 'f' && type.itemsize() == 4) return Type::kFloat32;
  if (native && type.kind() == 'f' && type.itemsize() == 2) return Type::kFloat16;
  if (native && type.kind() == 'u' && type.itemsize() == 1) return Type::kUint8;
  if (native && type.kind() == 'i' && type.itemsize() == 2) return Type::kInt16;
  throw Error(label + " must be float32, float16, uint8 or int16");
}

Tensor tensor(const char* name, const py::array& array, Use use) {
  return tensor(name, array, use, type_of(name, array));
}

Tensor tensor(const char* name, const py::array& array, Use use, Type type) {
  const std::string label = name;
  const auto rank = array.ndim();
  require(rank == 4 || rank == 5, label + " must have shape [N, C, D, H, W] or [N, C, H, W]");
  Tensor tensor;
  tensor.type = type;
  const bool planar = (array.flags() & py::array::c_style) != 0;
  require(planar || is_channels_last(array), label + " must be C-contiguous or channels-last");
  require(use == Use::kRead || array.writeable(), label + " must be writeable");
  tensor.channels_last = !planar;
  tensor.data = const_cast<void*>(array.data());
  tensor.n = array.shape(0);
  tensor.c = array.shape(1);
  tensor.d = rank == 5 ? array.shape(2) : 1;
  tensor.h = array.shape(rank - 2);
  tensor.w = array.shape(rank - 1);
  return tensor;
}

Isa isa_of(const std::string& name) {
  if (!name.empty()) return choose_isa(name);
  return hosts::chosen_isa();
}

Parallel threads_of(int threads) {
  require(threads >= 1, "threads must be at least 1, got " + std::to_string(threads));
  return pool(threads);
}

}  // namespace bind
}  // namespace ek
