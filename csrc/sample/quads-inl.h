// Linear interpolation of images whose channels are innermost, four channels of several voxels at once.
#pragma once

#include "sample/channel-inl.h"

namespace ek {
namespace EK_ISA {

constexpr int kQuad = 4;                // channels
constexpr int kGroup = kLanes / kQuad;  // voxels

// Types there are quads of.
constexpr bool has_quads(const float*) { return true; }
constexpr bool has_quads(const Half*) { return true; }
constexpr bool has_quads(const void*) { return false; }

// Writes channels [0, c / 4 * 4) of kGroup voxels from voxel i of the block on, all cells being inside.
template <class T, int kDims>
EK_INLINE void linear_quads(const SamplePlan& plan, const T* image, const Block& block, int i, T* out) {
  const int64_t channels = plan.args.image.c;
  const int64_t dy = step_along(plan.axis[1]) * channels, dz = step_along(plan.axis[0]) * channels;
  const F wx = spread_quads(block.weight[2][0] + i), wy = spread_quads(block.weight[1][0] + i);
  const F wz = kDims == 3 ? spread_quads(block.weight[0][0] + i) : F(0.0f);
  const T* corner[kGroup];
  for (int voxel = 0; voxel < kGroup; ++voxel) corner[voxel] = image + block.index[i + voxel] * channels;
  const auto quads = [&](int64_t offset) __attribute__((always_inline)) {
    const T* at[kGroup];
    for (int voxel = 0; voxel < kGroup; ++voxel) at[voxel] = corner[voxel] + offset;
    return load_quads(at);
  };
  const auto line = [&](int64_t offset) __attribute__((always_inline)) {
    return blend(quads(offset), quads(offset + channels), wx);
  };
  const auto plane = [&](int64_t offset) __attribute__((always_inline)) {
    return blend(line(offset), line(offset + dy), wy);
  };
  for (int64_t c = 0; c + kQuad <= channels; c += kQuad) {
    F value = plane(c);
    if constexpr (kDims == 3) value = blend(value, plane(c + dz), wz);
    store_quads(out + c, channels, value);
  }
}

}  // namespace EK_ISA
}  // namespace ek
