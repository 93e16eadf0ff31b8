// Which planes of the output the blocks of values reach, found before any is added.
#pragma once

#include "adjoint/adjoint_plan.h"
#include "sample/locate-inl.h"
#include "sample/rows-inl.h"

namespace ek {
namespace EK_ISA {

EK_INLINE float smaller_of(float a, float b) { return a < b ? a : b; }
EK_INLINE float larger_of(float a, float b) { return a > b ? a : b; }

// The smallest and the largest of displacements, NaN left out: low > high if nothing else is there.
struct Extent {
  float low, high;
};

EK_INLINE Extent extent_of(const float* flow, int count) {
  F low(__builtin_inff()), high(-__builtin_inff());
  each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
    // Lanes behind the end count as not displaced, which may only widen the reach. NaN is passed over.
    const F f = load_some(flow + at, lanes);
    low = min_(f, low);
    high = max_(f, high);
  });
  alignas(64) float lows[kLanes], highs[kLanes];
  store(lows, low);
  store(highs, high);
  Extent extent{lows[0], highs[0]};
  for (int i = 1; i < kLanes; ++i) {
    extent.low = smaller_of(extent.low, lows[i]);
    extent.high = larger_of(extent.high, highs[i]);
  }
  return extent;
}

// Of samples at p + f for f within the extent, along an axis.
EK_INLINE Reach reach_of(const Sample& args, const Axis& axis, float p, Extent extent) {
  if (!(extent.low <= extent.high)) return {0, -1};
  const bool extends = args.boundary == Boundary::kZero || args.boundary == Boundary::kEdge;
  const float low_end = extends ? -4.0f - p : -kFar, high_end = extends ? axis.size + 3.0f - p : kFar;
  const auto plane = [&](float f) __attribute__((always_inline)) {
    return static_cast<int32_t>(p) +
           static_cast<int32_t>(__builtin_floorf(smaller_of(high_end, larger_of(low_end, f))));
  };
  int32_t first = plane(extent.low) - (args.order == 3),
          last = plane(extent.high) + (args.order == 3 ? 2 : 1);
  const int32_t end = axis.count - 1;
  if (args.boundary == Boundary::kZero) {
    if (first < 0) first = 0;
    if (last > end) last = end;
  } else if (args.boundary == Boundary::kEdge) {
    // The last cell is also that of a sample at its end.
    const int32_t cell = end > 0 ? end - 1 : 0;
    first = first < 0 ? 0 : first > cell ? cell : first;
    last = last < 0 ? 0 : last > end ? end : last;
  } else if (first < 0 || last > end) {
    return {0, end};
  }
  return {first, last};
}

void reach_tasks(const void* context, int64_t begin, int64_t end) {
  const AdjointPlan& plan = *static_cast<const AdjointPlan*>(context);
  const Tensor& flow = plan.args.flow;
  const int component = plan.axis - (3 - plan.args.dims);
  each_block(plan.sample, begin, end, [&](const Row& row, int64_t x, int count) {
    const float* values =
        flow.as<const float>() + (row.n * flow.c + component) * flow.voxels() + row.first + x;
    const float p = static_cast<float>(plan.axis == 0 ? row.z : row.y);
    const int64_t number = (row.n * flow.d + row.z) * flow.h + row.y;
    plan.args.reaches[number * plan.blocks + x / kBlock] =
        reach_of(plan.sample.args, plan.sample.axis[plan.axis], p, extent_of(values, count));
  });
}

}  // namespace EK_ISA
}  // namespace ek
