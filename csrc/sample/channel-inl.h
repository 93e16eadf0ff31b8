// From blocks to one channel of one voxel of an image whose channels are innermost: its channel c is at
// image[voxel * channels + c]. The arithmetic is that of planar images, to the bit.
#pragma once

#include "sample/fetch-inl.h"

namespace ek {
namespace EK_ISA {

template <class V>
EK_INLINE V blend_channels(V a, V b, float weight) {
  return a * (1.0f - weight) + b * weight;
}

// Corners (z, y, x) of a cell as offsets in voxels; negative: outside and 0.
template <int kDims>
struct Cell {
  int32_t corner[1 << kDims];
  float wz, wy, wx;

  // at(offset) gives the channels of a voxel, zeros where the offset is negative.
  template <class V, class At>
  EK_MEMBER V sample(const At& at) const {
    V plane[2];
    for (int z = 0; z < (kDims == 3 ? 2 : 1); ++z) {
      const int32_t* c = corner + 4 * z;
      const V near = blend_channels<V>(at(c[0]), at(c[1]), wx),
              far = blend_channels<V>(at(c[2]), at(c[3]), wx);
      plane[z] = blend_channels<V>(near, far, wy);
    }
    if constexpr (kDims == 2) return plane[0];
    return blend_channels<V>(plane[0], plane[1], wz);
  }
};

template <int kDims>
EK_INLINE Cell<kDims> cell_of(const SamplePlan& plan, const Block& block, int i) {
  Cell<kDims> cell;
  cell.wz = kDims == 3 ? block.weight[0][0][i] : 0.0f;
  cell.wy = block.weight[1][0][i];
  cell.wx = block.weight[2][0][i];
  const bool mapped = block.access[i / kLanes] == Access::kMapped;
  for (int corner = 0; corner < 1 << kDims; ++corner) {
    const int z = corner >> 2, y = corner >> 1 & 1, x = corner & 1;
    if (mapped) {
      const int32_t oz = kDims == 3 ? block.offset[0][z][i] : 0, oy = block.offset[1][y][i],
                    ox = block.offset[2][x][i];
      cell.corner[corner] = (oz | oy | ox) < 0 ? kOutside : oz + oy + ox;
    } else {
      cell.corner[corner] =
          block.index[i] + static_cast<int32_t>(z * step_along(plan.axis[0]) + y * step_along(plan.axis[1]) +
                                                x * step_along(plan.axis[2]));
    }
  }
  return cell;
}

template <int kDims, class T>
EK_INLINE void linear_channel(const T* image, int64_t channels, const Cell<kDims>& cell, int64_t c, T* out) {
  narrow(out, cell.template sample<float>([&](int32_t at) __attribute__((always_inline)) {
    return at < 0 ? 0.0f : widen(image[at * channels + c]);
  }));
}

template <class T>
EK_INLINE void nearest_channel(const T* image, int64_t channels, const Block& block, int i, int64_t c,
                               T* out) {
  const int32_t index = block.index[i];
  if (index < 0) {
    narrow(out, index == kUnknown ? __builtin_nanf("") : 0.0f);
  } else {
    *out = image[index * channels + c];
  }
}

template <int kDims, class T>
EK_INLINE void cubic_channel(const T* image, int64_t channels, const Block& block, int i, int64_t c, T* out) {
  float total = 0.0f;
  EK_NO_UNROLL
  for (int k = 0; k < (kDims == 3 ? 4 : 1); ++k) {
    const int32_t z = kDims == 3 ? block.offset[0][k][i] : 0;
    float plane = 0.0f;
    for (int j = 0; j < 4; ++j) {
      const int32_t y = block.offset[1][j][i];
      float line = 0.0f;
      for (int t = 0; t < 4; ++t) {
        const int32_t x = block.offset[2][t][i];
        const float voxel = (z | y | x) < 0 ? 0.0f : widen(image[(int64_t{z} + y + x) * channels + c]);
        line = line + voxel * block.weight[2][t][i];
      }
      plane = plane + line * block.weight[1][j][i];
    }
    total = kDims == 3 ? total + plane * block.weight[0][k][i] : plane;
  }
  narrow(out, total);
}

}  // namespace EK_ISA
}  // namespace ek
