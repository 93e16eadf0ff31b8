// Parts of an image as float32, with what surrounds it: kernels that look at neighbours then need neither
// know the type of the image nor ask where it ends. Included after one of common/simd_*-inl.h.
#pragma once

#include "common/boundary.h"
#include "common/tensor.h"
#include "common/typed-inl.h"

namespace ek {
namespace EK_ISA {

// Voxels [z, z + d) x [y, y + h) x [x, x + w) of a channel. Any of them may be outside.
struct Box {
  int64_t z, y, x, d, h, w;
};

template <class T>
EK_INLINE void read_row(const T* row, int64_t size, int64_t x, int64_t w, Boundary boundary, float* to) {
  const auto one = [&](int64_t i) __attribute__((always_inline)) {
    const int64_t at = voxel_at(x + i, size, boundary);
    to[i] = at < 0 ? 0.0f : widen(row[at]);
  };
  const int64_t begin = x < 0 ? (-x < w ? -x : w) : 0, rest = size - x < w ? size - x : w;
  const int64_t end = rest > begin ? rest : begin;
  for (int64_t i = 0; i < begin; ++i) one(i);
  int64_t i = begin;
  for (; i + kLanes <= end; i += kLanes) store(to + i, load(row + x + i));
  if (i < end && end - begin >= kLanes) {  // some of them again
    store(to + end - kLanes, load(row + x + end - kLanes));
    i = end;
  }
  for (; i < w; ++i) one(i);
}

template <class T>
void read_typed(const T* channel, const Tensor& image, const Box& box, Boundary boundary, float* to,
                int64_t pitch) {
  for (int64_t z = 0; z < box.d; ++z) {
    const int64_t from_z = voxel_at(box.z + z, image.d, boundary);
    for (int64_t y = 0; y < box.h; ++y, to += pitch) {
      const int64_t from_y = voxel_at(box.y + y, image.h, boundary);
      if (from_z < 0 || from_y < 0) {
        for (int64_t x = 0; x < box.w; ++x) to[x] = 0.0f;
      } else {
        read_row(channel + (from_z * image.h + from_y) * image.w, image.w, box.x, box.w, boundary, to);
      }
      for (int64_t x = box.w; x < pitch; ++x) to[x] = 0.0f;
    }
  }
}

// Reads a box of channel `c` (counted through the batch) of a planar image: rows of box.w voxels, filled with
// zeros to `pitch`, one after the other.
inline void read_box(const Tensor& image, int64_t c, const Box& box, Boundary boundary, float* to,
                     int64_t pitch) {
  const int64_t first = c * image.voxels();
  switch (image.type) {
    case Type::kFloat16:
      return read_typed(image.as<const Half>() + first, image, box, boundary, to, pitch);
    case Type::kUint8:
      return read_typed(image.as<const uint8_t>() + first, image, box, boundary, to, pitch);
    case Type::kInt16:
      return read_typed(image.as<const int16_t>() + first, image, box, boundary, to, pitch);
    default:
      return read_typed(image.as<const float>() + first, image, box, boundary, to, pitch);
  }
}

template <class T>
EK_INLINE void write_typed(T* to, const float* from, int64_t count) {
  for (int64_t x = 0; x < count; x += kLanes) {
    const int lanes = count - x < kLanes ? static_cast<int>(count - x) : kLanes;
    store_some(to + x, fit(to, load_some(from + x, lanes)), lanes);
  }
}

// Writes elements [first, first + count) of a planar image, rounded to its type.
inline void write_row(const Tensor& image, int64_t first, const float* from, int64_t count) {
  switch (image.type) {
    case Type::kFloat16:
      return write_typed(image.as<Half>() + first, from, count);
    case Type::kUint8:
      return write_typed(image.as<uint8_t>() + first, from, count);
    case Type::kInt16:
      return write_typed(image.as<int16_t>() + first, from, count);
    default:
      return write_typed(image.as<float>() + first, from, count);
  }
}

// One voxel of channel `c`, at any place: what a thread of a device reads.
EK_INLINE float read_voxel(const Tensor& image, int64_t c, int64_t z, int64_t y, int64_t x,
                           Boundary boundary) {
  const int64_t vz = voxel_at(z, image.d, boundary), vy = voxel_at(y, image.h, boundary),
                vx = voxel_at(x, image.w, boundary);
  if (vz < 0 || vy < 0 || vx < 0) return 0.0f;
  const int64_t at = (c * image.d + vz) * image.h * image.w + vy * image.w + vx;
  switch (image.type) {
    case Type::kFloat16:
      return widen(image.as<const Half>()[at]);
    case Type::kUint8:
      return widen(image.as<const uint8_t>()[at]);
    case Type::kInt16:
      return widen(image.as<const int16_t>()[at]);
    default:
      return image.as<const float>()[at];
  }
}

// The same voxel of a result, rounded to its type.
EK_INLINE void write_voxel(const Tensor& image, int64_t at, float value) {
  switch (image.type) {
    case Type::kFloat16:
      return narrow(image.as<Half>() + at, value);
    case Type::kUint8:
      return narrow(image.as<uint8_t>() + at, value);
    case Type::kInt16:
      return narrow(image.as<int16_t>() + at, value);
    default:
      return narrow(image.as<float>() + at, value);
  }
}

}  // namespace EK_ISA
}  // namespace ek
