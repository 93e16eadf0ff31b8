// A view of an array [N, C, D, H, W] of any type, not owned: what kernels are given. 2-D means d == 1.
#pragma once

#include <cstdint>

#include "common/half.h"
#include "common/platform.h"

namespace ek {

// Coordinates are held in float32 lanes, which count exactly up to here.
constexpr int64_t kMaxAxis = int64_t{1} << 24;
// Offsets inside one array are int32 lanes.
constexpr int64_t kMaxElements = (int64_t{1} << 31) - 1;

// The last two are for labels, which are never computed with.
enum class Type : uint8_t { kFloat32, kFloat16, kUint8, kInt16, kInt32, kInt64 };

EK_HD constexpr int64_t size_of(Type type) {
  return type == Type::kUint8                             ? 1
         : type == Type::kFloat16 || type == Type::kInt16 ? 2
         : type == Type::kFloat32 || type == Type::kInt32 ? 4
                                                          : 8;
}

struct Tensor {
  void* data = nullptr;
  Type type = Type::kFloat32;
  bool channels_last = false;  // in memory [N, D, H, W, C]
  int64_t n = 0, c = 0, d = 0, h = 0, w = 0;

  EK_HD int64_t voxels() const { return d * h * w; }
  EK_HD int64_t elements() const { return n * c * voxels(); }
  EK_HD int64_t bytes() const { return elements() * size_of(type); }
  bool same_shape(const Tensor& o) const { return n == o.n && c == o.c && same_grid(o); }
  bool same_grid(const Tensor& o) const { return d == o.d && h == o.h && w == o.w; }
  template <class T>
  EK_HD T* as() const {
    return static_cast<T*>(data);
  }
};

// Throws Error unless every axis has 1..kMaxAxis elements and all together at most kMaxElements.
void check_size(const char* name, const Tensor& tensor);

bool overlap(const Tensor& a, const Tensor& b);

}  // namespace ek
