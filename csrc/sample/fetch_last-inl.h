// From blocks to samples of images whose channels are innermost: one voxel after the other, its channels
// together. The arithmetic is that of planar images, to the bit.
#pragma once

#include "sample/channel-inl.h"
#if defined(EK_QUADS)
#include "sample/quads-inl.h"
#endif

namespace ek {
namespace EK_ISA {

// Writes channels [first, c) of voxels [begin, end) of the block.
template <int kDims, class T>
EK_INLINE void linear_voxels(const SamplePlan& plan, const T* image, const Block& block, int begin, int end,
                             int64_t first, T* out) {
  const int64_t channels = plan.args.image.c;
  for (int i = begin; i < end && first < channels; ++i) {
    const Cell<kDims> cell = cell_of<kDims>(plan, block, i);
    for (int64_t c = first; c < channels; ++c)
      linear_channel<kDims>(image, channels, cell, c, out + i * channels + c);
  }
}

template <int kDims, class T>
EK_INLINE void linear_block(const SamplePlan& plan, const T* image, int count, const Block& block, T* out) {
  int i = 0;
#if defined(EK_QUADS)
  if constexpr (has_quads(static_cast<const T*>(nullptr))) {
    const int64_t channels = plan.args.image.c, rest = channels / kQuad * kQuad;
    for (; i + kGroup <= count; i += kGroup) {
      const bool inside = block.access[i / kLanes] == Access::kPairs;
      if (inside) linear_quads<T, kDims>(plan, image, block, i, out + i * channels);
      linear_voxels<kDims>(plan, image, block, i, i + kGroup, inside ? rest : 0, out);
    }
  }
#endif
  linear_voxels<kDims>(plan, image, block, i, count, 0, out);
}

template <class T, int kDims, int kOrder>
void fetch_last(const SamplePlan& plan, const Row& row, int64_t x, int count, const Block& block) {
  const Sample& args = plan.args;
  const int64_t channels = args.image.c;
  const T* image = args.image.as<const T>() + row.n * channels * args.image.voxels();
  T* out = args.out.as<T>() + (row.n * args.out.voxels() + row.first + x) * channels;
  if constexpr (kOrder == 1) return linear_block<kDims>(plan, image, count, block, out);
  for (int i = 0; i < count; ++i, out += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      if constexpr (kOrder == 0) {
        nearest_channel(image, channels, block, i, c, out + c);
      } else {
        cubic_channel<kDims>(image, channels, block, i, c, out + c);
      }
    }
  }
}

}  // namespace EK_ISA
}  // namespace ek
