// A view of planar volumes [N, C, D, H, W]: contiguous, not owned. A 2-D image is a volume with d == 1.
#pragma once

#include <cstdint>

namespace ek {

// Coordinates are held in float32 lanes, which count exactly up to here.
constexpr int64_t kMaxAxis = int64_t{1} << 24;
// Offsets inside one array are int32 lanes.
constexpr int64_t kMaxElements = (int64_t{1} << 31) - 1;

template <class T>
struct Volume {
  T* data = nullptr;
  int64_t n = 0, c = 0, d = 0, h = 0, w = 0;

  int64_t voxels() const { return d * h * w; }
  int64_t elements() const { return n * c * voxels(); }
  const T* end() const { return data + elements(); }
};

// Throws Error unless every axis has 1..kMaxAxis elements and all together at most kMaxElements.
void check_size(const char* name, int64_t n, int64_t c, int64_t d, int64_t h, int64_t w);

template <class A, class B>
bool overlap(const Volume<A>& a, const Volume<B>& b) {
  return reinterpret_cast<std::uintptr_t>(a.data) < reinterpret_cast<std::uintptr_t>(b.end()) &&
         reinterpret_cast<std::uintptr_t>(b.data) < reinterpret_cast<std::uintptr_t>(a.end());
}

}  // namespace ek
