// From coordinates to blocks.
#pragma once

#include "sample/block-inl.h"

namespace ek {
namespace EK_ISA {

// Coordinates of one vector along one axis, p + f.
struct Coordinate {
  F f, p;
  I whole;  // p again
};

// The lanes of a load that is narrower than a vector, the rest 0.
template <class T>
EK_INLINE F load_some(const T* p, int count) {
  if (count == kLanes) return load(p);
  if constexpr (sizeof(T) == sizeof(float)) {
    return load_first(p, count);
  } else {
    T lanes[kLanes] = {};
    for (int i = 0; i < count; ++i) lanes[i] = p[i];
    return load(lanes);
  }
}

// p + scale * flow[p]
template <class T, int kDims>
struct Displacement {
  const T* flow;
  int64_t voxels;
  F scale;
  Coordinate z, y;
  int64_t x;

  EK_MEMBER Displacement(const SamplePlan& plan, const Row& row, int64_t begin)
      : flow(plan.args.coordinates.as<const T>() + row.n * kDims * plan.args.coordinates.voxels() +
             row.first + begin),
        voxels(plan.args.coordinates.voxels()),
        scale(plan.args.scale),
        z(of(row.z)),
        y(of(row.y)),
        x(begin) {}

  static EK_MEMBER Coordinate of(int64_t p) {
    return {F(0.0f), F(static_cast<float>(p)), I(static_cast<int32_t>(p))};
  }

  // axis 0, 1, 2: z, y, x; a 2-D flow has no component along z.
  EK_MEMBER Coordinate operator()(int axis, int at, int count) const {
    Coordinate coordinate = axis == 0 ? z : y;
    if (axis == 2) {
      coordinate = of(x + at);
      // Lanes behind the end of the row stand still at its last voxel, whose neighbours exist.
      const I lane = count == kLanes ? int_iota() : min_(int_iota(), I(count - 1));
      coordinate.p = coordinate.p + to_float(lane);
      coordinate.whole = coordinate.whole + lane;
    }
    coordinate.f = load_some(flow + (axis - (3 - kDims)) * voxels + at, count) * scale;
    return coordinate;
  }
};

// Hardware does not foresee the lines of the image where the displacement varies: having those of lane 0 on
// their way while the rest of the block is placed takes a sixth off the time of a smooth field with AVX2.
template <int kDims>
EK_INLINE void prefetch_lines(const SamplePlan& plan, const Row& row, int32_t index) {
  const Tensor& image = plan.args.image;
  if (image.channels_last) return;
  const int64_t size = size_of(image.type);
  const char* corner = image.as<const char>() + (row.n * image.c * image.voxels() + index) * size;
  const int64_t dz = plan.axis[0].stride * size, dy = plan.axis[1].stride * size;
  __builtin_prefetch(corner);
  __builtin_prefetch(corner + dy);
  if constexpr (kDims == 3) {
    __builtin_prefetch(corner + dz);
    __builtin_prefetch(corner + dz + dy);
  }
}

// How a vector of corners inside the image is fetched. `reach` is how far the last corner of a cell lies
// behind its first.
EK_INLINE Access access_of(const SamplePlan& plan, I index, int32_t first, int32_t reach) {
  if (plan.axis[2].count == 1) return Access::kSingle;
  if (consecutive(index)) return Access::kRun;
  const int64_t end = plan.args.image.voxels();
  const I rest = index - I(first);
  const bool close = all(greater_equal(rest, I(0))) && all(greater_equal(I(2 * kLanes - 2), rest));
  return close && int64_t{first} + reach + 2 * kLanes <= end ? Access::kWindow : Access::kPairs;
}

template <int kDims, bool kEdge, class Source>
EK_INLINE void linear_vector(const SamplePlan& plan, const Row& row, const Source& source, int at, int count,
                             Block& block) {
  const Boundary boundary = plan.args.boundary;
  I inside = I(0);  // has no sign bit if every corner of the lane is inside
  I whole[3];
  for (int axis = 3 - kDims; axis < 3; ++axis) {
    const Axis& a = plan.axis[axis];
    const Coordinate c = source(axis, at, count);
    const Split s = kEdge ? linear_edge(c.f, c.p, a.size) : split_extended(boundary, c.f, c.p, a.size, 1.0f);
    whole[axis] = to_int(s.offset) + c.whole;
    if constexpr (!kEdge) inside = inside | whole[axis] | (I(a.count - 2) - whole[axis]);
    store(block.weight[axis][0] + at, s.weight);
  }
  if (!kEdge && !all(greater_equal(inside, I(0)))) {
    block.access[at / kLanes] = Access::kMapped;
    for (int axis = 3 - kDims; axis < 3; ++axis) {
      const Axis& a = plan.axis[axis];
      for (int tap = 0; tap < 2; ++tap) {
        const I voxel = extend(whole[axis] + I(tap), a, boundary);
        store(block.offset[axis][tap] + at, select(greater_equal(voxel, I(0)), voxel * I(a.stride), voxel));
      }
    }
    return;
  }
  I index = whole[2] + whole[1] * I(plan.axis[1].stride);
  if constexpr (kDims == 3) index = index + whole[0] * I(plan.axis[0].stride);
  store(block.index + at, index);
  const int32_t first = block.index[at];
  const int32_t reach = plan.axis[1].stride + (kDims == 3 ? plan.axis[0].stride : 0);
  block.access[at / kLanes] = access_of(plan, index, first, reach);
  prefetch_lines<kDims>(plan, row, first);
}

template <int kDims, class Source>
EK_INLINE void nearest_vector(const SamplePlan& plan, const Source& source, int at, int count, Block& block) {
  const Boundary boundary = plan.args.boundary;
  I index = I(0), outside = I(0);
  M known = greater_equal(F(0.0f), F(0.0f));
  for (int axis = 3 - kDims; axis < 3; ++axis) {
    const Axis& a = plan.axis[axis];
    const Coordinate c = source(axis, at, count);
    known = both(known, greater_equal(max_(F(0.0f), c.f), F(0.0f)));  // false for NaN alone
    const Split s = split_extended(boundary, c.f, c.p, a.size, 1.0f);
    const I voxel = extend(to_int(nearest_offset(s)) + c.whole, a, boundary);
    outside = outside | voxel;
    index = index + voxel * I(a.stride);
  }
  index = select(greater_equal(outside, I(0)), index, I(kOutside));
  index = select(known, index, I(kUnknown));
  store(block.index + at, index);
  block.access[at / kLanes] = all(greater_equal(index, I(0)))
                                  ? (consecutive(index) ? Access::kRun : Access::kPairs)
                                  : Access::kMapped;
}

template <int kDims, class Source>
EK_INLINE void cubic_vector(const SamplePlan& plan, const Source& source, int at, int count, Block& block) {
  const Boundary boundary = plan.args.boundary;
  for (int axis = 3 - kDims; axis < 3; ++axis) {
    const Axis& a = plan.axis[axis];
    const Coordinate c = source(axis, at, count);
    const Split s = split_extended(boundary, c.f, c.p, a.size, 3.0f);
    const Cubic cubic = cubic_weights(s.weight, plan.args.cubic);
    const I first = to_int(s.offset) + c.whole - I(1);
    for (int tap = 0; tap < 4; ++tap) {
      const I voxel = extend(first + I(tap), a, boundary);
      store(block.offset[axis][tap] + at, select(greater_equal(voxel, I(0)), voxel * I(a.stride), voxel));
      store(block.weight[axis][tap] + at, cubic.weight[tap]);
    }
  }
  block.access[at / kLanes] = Access::kMapped;
}

template <int kDims, class Source>
void locate(const SamplePlan& plan, const Row& row, int64_t x, int count, Block& block) {
  const Source source(plan, row, x);
  if (plan.args.order == 0) {
    each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
      nearest_vector<kDims>(plan, source, at, lanes, block);
    });
  } else if (plan.args.order == 1 && plan.args.boundary == Boundary::kEdge) {
    each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
      linear_vector<kDims, true>(plan, row, source, at, lanes, block);
    });
  } else if (plan.args.order == 1) {
    each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
      linear_vector<kDims, false>(plan, row, source, at, lanes, block);
    });
  } else {
    each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
      cubic_vector<kDims>(plan, source, at, lanes, block);
    });
  }
}

EK_INLINE Locate choose_locate(const Sample& args) {
  const bool half = args.coordinates.type == Type::kFloat16;
  if (args.dims == 3) return half ? locate<3, Displacement<Half, 3>> : locate<3, Displacement<float, 3>>;
  return half ? locate<2, Displacement<Half, 2>> : locate<2, Displacement<float, 2>>;
}

}  // namespace EK_ISA
}  // namespace ek
