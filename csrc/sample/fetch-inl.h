// From blocks to samples of planar images.
#pragma once

#include "sample/block-inl.h"

namespace ek {
namespace EK_ISA {

// base[index], 0 where the index is negative.
EK_INLINE F gather_inside(const float* base, I index) {
  return gather(base, index, greater_equal(index, I(0)));
}
template <class T>
EK_INLINE F gather_inside(const T* base, I index) {
  alignas(64) int32_t at[kLanes];
  alignas(64) float lanes[kLanes];
  store(at, index);
  for (int i = 0; i < kLanes; ++i) lanes[i] = at[i] < 0 ? 0.0f : widen(base[at[i]]);
  return load(lanes);
}

// The sum of a tap's offsets, kOutside if one of them is.
EK_INLINE I corner_index(I z, I y, I x) {
  return select(greater_equal(z | y | x, I(0)), z + y + x, I(kOutside));
}

// Both ends of a line of a cell.
template <Access kAccess, class T>
EK_INLINE void ends(const T* image, const int32_t* index, F& first, F& second) {
  if constexpr (kAccess == Access::kPairs) {
    gather_pairs(image, index, first, second);
  } else {
    first = second = gather_inside(image, load(index));
  }
}

template <Access kAccess, class T>
EK_INLINE F line(const T* image, const int32_t* index, F weight) {
  F first, second;
  ends<kAccess>(image, index, first, second);
  return blend(first, second, weight);
}

// Along an axis of one voxel the second corner is the first, at weight 0 or NaN.
EK_INLINE int64_t step_along(const Axis& axis) { return axis.count > 1 ? axis.stride : 0; }

template <int kDims, Access kAccess, class T>
EK_INLINE F cell(const SamplePlan& plan, const T* image, const Block& block, int at) {
  const int64_t dy = step_along(plan.axis[1]), dz = step_along(plan.axis[0]);
  const int32_t* index = block.index + at;
  const F wx = load(block.weight[2][0] + at), wy = load(block.weight[1][0] + at);
  const F near = blend(line<kAccess>(image, index, wx), line<kAccess>(image + dy, index, wx), wy);
  if constexpr (kDims == 2) return near;
  image += dz;
  const F far = blend(line<kAccess>(image, index, wx), line<kAccess>(image + dy, index, wx), wy);
  return blend(near, far, load(block.weight[0][0] + at));
}

template <int kDims, class T>
EK_INLINE F mapped_cell(const T* image, const Block& block, int at) {
  const auto offset = [&](int axis, int tap)
                          __attribute__((always_inline)) { return load(block.offset[axis][tap] + at); };
  const auto weight = [&](int axis)
                          __attribute__((always_inline)) { return load(block.weight[axis][0] + at); };
  const I x0 = offset(2, 0), x1 = offset(2, 1);
  const auto plane = [&](I z) __attribute__((always_inline)) {
    F lines[2];
    for (int tap = 0; tap < 2; ++tap) {
      const I y = offset(1, tap);
      lines[tap] = blend(gather_inside(image, corner_index(z, y, x0)),
                         gather_inside(image, corner_index(z, y, x1)), weight(2));
    }
    return blend(lines[0], lines[1], weight(1));
  };
  if constexpr (kDims == 2) return plane(I(0));
  return blend(plane(offset(0, 0)), plane(offset(0, 1)), weight(0));
}

// Samples of channels `step` voxels apart.
template <int kDims, int kChannels, class T>
EK_INLINE void linear_samples(const SamplePlan& plan, const T* image, int64_t step, const Block& block,
                              int at, F* value) {
  const Access access = block.access[at / kLanes];
  if (access == Access::kPairs) {
    EK_UNROLL
    for (int c = 0; c < kChannels; ++c)
      value[c] = cell<kDims, Access::kPairs>(plan, image + c * step, block, at);
  } else if (access == Access::kSingle) {
    for (int c = 0; c < kChannels; ++c)
      value[c] = cell<kDims, Access::kSingle>(plan, image + c * step, block, at);
  } else {
    for (int c = 0; c < kChannels; ++c) value[c] = mapped_cell<kDims>(image + c * step, block, at);
  }
}

template <int kDims, class T>
EK_INLINE F linear_sample(const SamplePlan& plan, const T* image, const Block& block, int at) {
  F value;
  linear_samples<kDims, 1>(plan, image, 0, block, at, &value);
  return value;
}

template <class T>
EK_INLINE F nearest_sample(const T* image, const Block& block, int at) {
  const I lanes = load(block.index + at);
  return select(greater_equal(I(kUnknown), lanes), F(__builtin_nanf("")), gather_inside(image, lanes));
}

template <int kDims, class T>
EK_INLINE F cubic_sample(const T* image, const Block& block, int at) {
  constexpr int kPlanes = kDims == 3 ? 4 : 1;
  F total(0.0f);
  EK_NO_UNROLL
  for (int k = 0; k < kPlanes; ++k) {
    const I z = kDims == 3 ? load(block.offset[0][k] + at) : I(0);
    F plane(0.0f);
    for (int j = 0; j < 4; ++j) {
      const I y = load(block.offset[1][j] + at);
      F line(0.0f);
      for (int i = 0; i < 4; ++i) {
        const I index = corner_index(z, y, load(block.offset[2][i] + at));
        line = line + gather_inside(image, index) * load(block.weight[2][i] + at);
      }
      plane = plane + line * load(block.weight[1][j] + at);
    }
    if constexpr (kDims == 2) return plane;
    total = total + plane * load(block.weight[0][k] + at);
  }
  return total;
}

// Writes channels [c, c + kChannels). Nothing is stored before all of them are fetched: indices and weights
// stay in registers, and no load waits for a store that is a whole number of pages away.
template <class T, int kDims, int kOrder, Finish kFinish, int kChannels>
EK_INLINE void fetch_channels(const SamplePlan& plan, const Row& row, int64_t x, int count,
                              const Block& block, int64_t c) {
  const Sample& args = plan.args;
  const int64_t image_voxels = args.image.voxels(), out_voxels = args.out.voxels();
  const T* image = args.image.as<const T>() + (row.n * args.image.c + c) * image_voxels;
  const int64_t first = (row.n * args.image.c + c) * out_voxels + row.first + x;
  T* out = args.out.as<T>() + first;
  const float* flow = args.coordinates.as<const float>() + first;
  each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
    F value[kChannels];
    if constexpr (kOrder == 0) {
      value[0] = nearest_sample(image, block, at);
    } else if constexpr (kOrder == 1) {
      linear_samples<kDims, kChannels>(plan, image, image_voxels, block, at, value);
    } else {
      value[0] = cubic_sample<kDims>(image, block, at);
    }
    if constexpr (kFinish == Finish::kAddFlow) {
      EK_UNROLL
      for (int i = 0; i < kChannels; ++i) {
        const F displacement = load_some(flow + i * out_voxels + at, lanes);
        value[i] = displacement * F(args.scale) + value[i] * F(args.scale);
      }
    }
    EK_UNROLL
    for (int i = 0; i < kChannels; ++i) store_some(out + i * out_voxels + at, fit(out, value[i]), lanes);
  });
}

template <class T, int kDims, int kOrder, Finish kFinish>
EK_HD void fetch(const SamplePlan& plan, const Row& row, int64_t x, int count, const Block& block) {
  constexpr bool kGrouped = kOrder == 1 && kBlock > 1;  // a thread of a GPU has few registers
  constexpr int kChannels = !kGrouped ? 1 : kFinish == Finish::kAddFlow ? kDims : 4;
  const int64_t channels = plan.args.image.c;
  int64_t c = 0;
  for (; c + kChannels <= channels; c += kChannels)
    fetch_channels<T, kDims, kOrder, kFinish, kChannels>(plan, row, x, count, block, c);
  if constexpr (kChannels > 1 && kFinish == Finish::kStore) {
    for (; c < channels; ++c) fetch_channels<T, kDims, kOrder, kFinish, 1>(plan, row, x, count, block, c);
  }
}

}  // namespace EK_ISA
}  // namespace ek
