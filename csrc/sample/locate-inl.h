// From coordinates to blocks.
#pragma once

#include "sample/sources-inl.h"

namespace ek {
namespace EK_ISA {

// Lanes behind the end of a row stand still at its last voxel, so that their neighbours exist.
EK_INLINE I lane_of(int count) { return count == kLanes ? int_iota() : min_(int_iota(), I(count - 1)); }

// p + scale * flow[p]
template <class T, int kDims>
struct Displacement {
  const T* flow;
  int64_t voxels;
  float scale;
  int32_t z, y, x;

  EK_MEMBER Displacement(const SamplePlan& plan, const Row& row, int64_t begin)
      : flow(plan.args.coordinates.as<const T>() + row.n * kDims * plan.args.coordinates.voxels() +
             row.first + begin),
        voxels(plan.args.coordinates.voxels()),
        scale(plan.args.scale),
        z(static_cast<int32_t>(row.z)),
        y(static_cast<int32_t>(row.y)),
        x(static_cast<int32_t>(begin)) {}

  // A 2-D flow has no component along z.
  template <int kAxis>
  EK_MEMBER F f(int at, int count) const {
    return load_some(flow + (kAxis - (3 - kDims)) * voxels + at, count) * F(scale);
  }
  template <int kAxis>
  EK_MEMBER I whole(int at, int count) const {
    return kAxis == 2 ? I(x + at) + lane_of(count) : I(kAxis == 0 ? z : y);
  }
  template <int kAxis>
  EK_MEMBER F p(int at, int count) const {
    return to_float(whole<kAxis>(at, count));
  }
};

// The lines of an image that a vector of cells touches. Hardware does not foresee them where the displacement
// varies, so they are asked for while the block is placed. Only those of the second plane: where
// displacements are smooth, the plane before has asked for the first one's. A device has other threads to do
// meanwhile.
template <int kDims>
struct Lines {
#if !defined(EK_DEVICE)
  const char* image;
  int64_t voxel, dy, ahead;   // bytes; the last one to the second plane
  int64_t channels, channel;  // how many lie apart, and how far
  int step;                   // lanes that share a line of the cache, as a rule

  EK_MEMBER Lines(const SamplePlan& plan, const Row& row) {
    const Tensor& tensor = plan.args.image;
    const int64_t size = size_of(tensor.type);
    constexpr int64_t kMost = 4;
    image = tensor.as<const char>() + row.n * tensor.c * tensor.voxels() * size;
    voxel = tensor.channels_last ? tensor.c * size : size;
    dy = plan.axis[1].stride * voxel;
    ahead = kDims == 3 ? plan.axis[0].stride * voxel : 0;
    channels = tensor.channels_last ? 1 : tensor.c < kMost ? tensor.c : kMost;
    channel = tensor.voxels() * size;
    step = voxel <= 8 ? 8 : voxel <= 16 ? 4 : 1;
  }

  EK_MEMBER void prefetch(const int32_t* index) const {
    for (int lane = 0; lane < kLanes; lane += step) {
      const char* corner = image + index[lane] * voxel;
      for (int64_t c = 0; c < channels; ++c, corner += channel) {
        __builtin_prefetch(corner + ahead);
        __builtin_prefetch(corner + ahead + dy);
      }
    }
  }
#else
  EK_MEMBER Lines(const SamplePlan&, const Row&) {}
  EK_MEMBER void prefetch(const int32_t*) const {}
#endif
};

// Places a vector along one axis: stores the weight, returns the first corner.
template <int kAxis, bool kEdge, class Source>
EK_INLINE I place(const SamplePlan& plan, const Source& source, int at, int count, Block& block) {
  const F f = source.template f<kAxis>(at, count), p = source.template p<kAxis>(at, count);
  const float size = plan.axis[kAxis].size;
  // Two voxels beyond: at one the second corner would still be inside, at weight 0, and 0 * inf is NaN.
  const Split s = kEdge ? linear_edge(f, p, size) : split_extended(plan.args.boundary, f, p, size, 2.0f);
  store(block.weight[kAxis][0] + at, s.weight);
  return to_int(s.offset) + source.template whole<kAxis>(at, count);
}

// Stores where the boundary rule puts a number of voxels from the first one on.
template <int kTapCount>
EK_INLINE void map_taps(const SamplePlan& plan, int axis, I first, int at, Block& block) {
  const Axis& a = plan.axis[axis];
  for (int tap = 0; tap < kTapCount; ++tap) {
    const I voxel = extend(first + I(tap), a, plan.args.boundary);
    store(block.offset[axis][tap] + at, select(greater_equal(voxel, I(0)), voxel * I(a.stride), voxel));
  }
}

// Has a sign bit where a voxel or the next one is outside.
EK_INLINE I beyond(I first, const Axis& axis) { return first | (I(axis.count - 2) - first); }

template <int kDims, bool kEdge, class Source>
EK_INLINE void linear_vector(const SamplePlan& plan, const Lines<kDims>& lines, const Source& source, int at,
                             int count, Block& block) {
  I z(0);
  if constexpr (kDims == 3) z = place<0, kEdge>(plan, source, at, count, block);
  const I y = place<1, kEdge>(plan, source, at, count, block);
  const I x = place<2, kEdge>(plan, source, at, count, block);
  if constexpr (!kEdge) {
    I outside = beyond(y, plan.axis[1]) | beyond(x, plan.axis[2]);
    if constexpr (kDims == 3) outside = outside | beyond(z, plan.axis[0]);
    if (!all(greater_equal(outside, I(0)))) {
      block.access[at / kLanes] = Access::kMapped;
      if constexpr (kDims == 3) map_taps<2>(plan, 0, z, at, block);
      map_taps<2>(plan, 1, y, at, block);
      map_taps<2>(plan, 2, x, at, block);
      return;
    }
  }
  I index = x + y * I(plan.axis[1].stride);
  if constexpr (kDims == 3) index = index + z * I(plan.axis[0].stride);
  store(block.index + at, index);
  block.access[at / kLanes] = plan.axis[2].count > 1 ? Access::kPairs : Access::kSingle;
  lines.prefetch(block.index + at);
}

template <int kAxis, class Source>
EK_INLINE void place_nearest(const SamplePlan& plan, const Source& source, int at, int count, I& index,
                             I& outside, M& known) {
  const Axis& a = plan.axis[kAxis];
  const F f = source.template f<kAxis>(at, count), p = source.template p<kAxis>(at, count);
  known = both(known, greater_equal(max_(F(0.0f), f), F(0.0f)));  // false for NaN alone
  const Split s = split_extended(plan.args.boundary, f, p, a.size, 1.0f);
  const I voxel =
      extend(to_int(nearest_offset(s)) + source.template whole<kAxis>(at, count), a, plan.args.boundary);
  outside = outside | voxel;
  index = index + voxel * I(a.stride);
}

template <int kDims, class Source>
EK_INLINE void nearest_vector(const SamplePlan& plan, const Source& source, int at, int count, Block& block) {
  I index(0), outside(0);
  M known = greater_equal(F(0.0f), F(0.0f));
  if constexpr (kDims == 3) place_nearest<0>(plan, source, at, count, index, outside, known);
  place_nearest<1>(plan, source, at, count, index, outside, known);
  place_nearest<2>(plan, source, at, count, index, outside, known);
  index = select(greater_equal(outside, I(0)), index, I(kOutside));
  index = select(known, index, I(kUnknown));
  store(block.index + at, index);
  block.access[at / kLanes] = all(greater_equal(index, I(0))) ? Access::kPairs : Access::kMapped;
}

template <int kAxis, class Source>
EK_INLINE void place_cubic(const SamplePlan& plan, const Source& source, int at, int count, Block& block) {
  const F f = source.template f<kAxis>(at, count), p = source.template p<kAxis>(at, count);
  const Split s = split_extended(plan.args.boundary, f, p, plan.axis[kAxis].size, 3.0f);
  const Cubic cubic = cubic_weights(s.weight, plan.args.cubic);
  for (int tap = 0; tap < 4; ++tap) store(block.weight[kAxis][tap] + at, cubic.weight[tap]);
  map_taps<4>(plan, kAxis, to_int(s.offset) + source.template whole<kAxis>(at, count) - I(1), at, block);
}

template <int kDims, class Source>
EK_INLINE void cubic_vector(const SamplePlan& plan, const Source& source, int at, int count, Block& block) {
  if constexpr (kDims == 3) place_cubic<0>(plan, source, at, count, block);
  place_cubic<1>(plan, source, at, count, block);
  place_cubic<2>(plan, source, at, count, block);
  block.access[at / kLanes] = Access::kMapped;
}

template <int kDims, class Source>
EK_HD void locate(const SamplePlan& shared, const Row& row, int64_t x, int count, Block& block) {
  const SamplePlan plan = shared;  // a copy of its own, which no store to the block can change
  const Source source(plan, row, x);
  const Lines<kDims> lines(plan, row);
  if (plan.args.order == 0) {
    each_vector(count, [&](int at, int some) __attribute__((always_inline)) {
      nearest_vector<kDims>(plan, source, at, some, block);
    });
  } else if (plan.args.order == 1 && plan.args.boundary == Boundary::kEdge) {
    each_vector(count, [&](int at, int some) __attribute__((always_inline)) {
      linear_vector<kDims, true>(plan, lines, source, at, some, block);
    });
  } else if (plan.args.order == 1) {
    each_vector(count, [&](int at, int some) __attribute__((always_inline)) {
      linear_vector<kDims, false>(plan, lines, source, at, some, block);
    });
  } else {
    each_vector(count, [&](int at, int some) __attribute__((always_inline)) {
      cubic_vector<kDims>(plan, source, at, some, block);
    });
  }
}

template <int kDims>
EK_INLINE Locate choose_source(const Sample& args) {
  switch (args.source) {
    case Source::kGrid:
      return locate<kDims, Grid<kDims>>;
    case Source::kAffine:
      return locate<kDims, Affine<kDims>>;
    default:
      return args.coordinates.type == Type::kFloat16 ? locate<kDims, Displacement<Half, kDims>>
                                                     : locate<kDims, Displacement<float, kDims>>;
  }
}

EK_INLINE Locate choose_locate(const Sample& args) {
  return args.dims == 3 ? choose_source<3>(args) : choose_source<2>(args);
}

}  // namespace EK_ISA
}  // namespace ek
