#include "bind/bind.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <cstdlib>

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

constexpr std::align_val_t kAlign{kWorkspaceAlign}, kPage{size_t{1} << 21};

// Both sides of an allocation have to name the same one.
std::align_val_t align_of(int64_t bytes) { return bytes >= 2 * static_cast<int64_t>(kPage) ? kPage : kAlign; }

Workspace allocate(int threads, int64_t bytes) {
  const std::align_val_t align = align_of(bytes);
  void* data = ::operator new(static_cast<size_t>(bytes), align);
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (align == kPage) madvise(data, static_cast<size_t>(bytes), MADV_HUGEPAGE);  // advice: it may fail
#endif
  return {data, threads, bytes};
}

}  // namespace

Memory::Memory(int threads, int64_t bytes) : workspace(allocate(threads, threads * aligned(bytes))) {}

Memory::~Memory() { ::operator delete(workspace.data, align_of(workspace.bytes)); }

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

Boundary boundary_of(const std::string& name) {
  if (name == "zero") return Boundary::kZero;
  if (name == "edge") return Boundary::kEdge;
  if (name == "mirror") return Boundary::kMirror;
  if (name == "reflect") return Boundary::kReflect;
  if (name == "wrap") return Boundary::kWrap;
  throw Error("boundary must be 'zero', 'edge', 'mirror', 'reflect' or 'wrap', got '" + name + "'");
}

Isa isa_of(const std::string& name) {
  if (!name.empty()) return choose_isa(name);
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

Parallel threads_of(int threads) {
  require(threads >= 1, "threads must be at least 1, got " + std::to_string(threads));
  return pool(threads);
}

}  // namespace bind
}  // namespace ek
