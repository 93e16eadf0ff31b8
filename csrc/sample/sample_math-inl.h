// The mathematics of one sample along one axis, for whatever F, I and M are in this namespace: a scalar on
// the host or on a device, or the lanes of an instruction set. Included after one of common/simd_*-inl.h.
//
// A coordinate is p + f: a whole number and a displacement. It is the displacement that is split into offset
// and weight: its fraction is then exact however large the volume is. Nothing is contracted and every
// instruction set evaluates in this order, so all give the same bits.
#pragma once

#include "common/boundary.h"
#include "common/platform.h"
#include "sample/sample_plan.h"

namespace ek {
namespace EK_ISA {

// Under a periodic rule a displacement of more voxels counts as this many.
constexpr float kFar = 1048576.0f;
// In place of an index: the voxel is outside and counts as 0; the coordinate is NaN.
constexpr int32_t kOutside = -1, kUnknown = -2;

// The first of the voxels that take part, relative to p, and the coordinate's distance from it.
struct Split {
  F offset;
  F weight;
};

// A NaN displacement passes both clamps and ends up in the weight; the last min_ turns the offset, where
// floor_ left NaN, into a safe one.
EK_HD EK_INLINE Split split_within(F f, F low, F high, F last) {
  f = min_(high, max_(low, f));
  const F offset = min_(floor_(f), last);
  return {offset, f - offset};
}

// Linear interpolation of the coordinate clamped to [0, n - 1]. The offset never passes n - 2, so that both
// voxels exist (where n == 1 the caller takes the first for the second).
EK_HD EK_INLINE Split linear_edge(F f, F p, float n) {
  return split_within(f, F(0.0f) - p, F(n - 1.0f) - p, F(n > 1.0f ? n - 2.0f : 0.0f) - p);
}

// Any other interpolation: clamped only where nothing changes any more, `beyond` voxels outside the image.
EK_HD EK_INLINE Split split_extended(Boundary boundary, F f, F p, float n, float beyond) {
  if (boundary == Boundary::kZero || boundary == Boundary::kEdge) {
    const F high = F(n - 1.0f + beyond) - p;
    return split_within(f, F(-beyond) - p, high, high);
  }
  return split_within(f, F(-kFar), F(kFar), F(kFar));
}

// The offset of the voxel nearest to p + f; halves round up.
EK_HD EK_INLINE F nearest_offset(Split s) {
  return select(greater_equal(s.weight, F(0.5f)), s.offset + F(1.0f), s.offset);
}

// i modulo the period; exact, as the quotient is wrong by less than one.
EK_HD EK_INLINE I modulo(I i, const Axis& axis) {
  const I period = I(axis.period);
  I rest = i - to_int(floor_(to_float(i) * F(axis.inverse_period))) * period;
  rest = select(greater_equal(rest, I(0)), rest, rest + period);
  return select(greater_equal(rest, period), rest - period, rest);
}

// The voxel that stands for any whole coordinate, or kOutside.
EK_HD EK_INLINE I extend(I i, const Axis& axis, Boundary boundary) {
  const I last = I(axis.count - 1);
  if (boundary == Boundary::kEdge) return min_(last, max_(I(0), i));
  if (boundary == Boundary::kZero) {
    const I inside = select(greater_equal(i, I(0)), i, I(kOutside));
    return select(greater_equal(last, i), inside, I(kOutside));
  }
  const I within = modulo(i, axis);
  if (boundary == Boundary::kWrap) return within;
  const I back = I(boundary == Boundary::kMirror ? axis.period : axis.period - 1) - within;
  return select(greater_equal(last, within), within, back);
}

// Exact at both ends: weight 0 gives a, weight 1 gives b.
EK_HD EK_INLINE F blend(F a, F b, F weight) { return a * (F(1.0f) - weight) + b * weight; }

// Cubic convolution (Keys, 1981) with parameter a: weights of the voxels at -1, 0, 1 and 2 from the offset,
// for a coordinate t in [0, 1] from it.
struct Cubic {
  F weight[4];
};

EK_HD EK_INLINE F cubic_near(F x, float a) { return ((F(a + 2.0f) * x - F(a + 3.0f)) * x) * x + F(1.0f); }
EK_HD EK_INLINE F cubic_far(F x, float a) {
  return ((F(a) * x - F(5.0f * a)) * x + F(8.0f * a)) * x - F(4.0f * a);
}

EK_HD EK_INLINE Cubic cubic_weights(F t, float a) {
  const F back = F(1.0f) - t;
  return {{cubic_far(t + F(1.0f), a), cubic_near(t, a), cubic_near(back, a), cubic_far(back + F(1.0f), a)}};
}

}  // namespace EK_ISA
}  // namespace ek
