// The mathematics of one sample along one axis, for whatever F, I and M are in this namespace: a scalar on
// the host or on a device, or the lanes of an instruction set. Included after one of common/simd_*-inl.h.
//
// The displacement is split, not the coordinate: its fraction is then exact however large the volume is.
// Nothing is contracted and every instruction set evaluates in this order, so all give the same bits.
#pragma once

#include "common/platform.h"

namespace ek {
namespace EK_ISA {

// The two voxels p + offset and p + offset + 1 next to a sample, and the weight of the second.
struct Tap {
  F offset;
  F weight;
  M first_inside, second_inside;  // only set where the boundary rule is zero
};

// The coordinate p + f clamped to [0, n - 1]. The offset never passes n - 2, so that both voxels exist (where
// n == 1 the caller takes the first for the second). A NaN displacement passes both clamps and ends up in the
// weight; min_ then turns the offset, where floor_ left NaN, into a safe one.
EK_HD EK_INLINE Tap linear_edge(F f, F p, float n) {
  f = min_(F(n - 1.0f) - p, max_(F(0.0f) - p, f));
  const F offset = min_(floor_(f), F(n > 1.0f ? n - 2.0f : 0.0f) - p);
  return {offset, f - offset, M(), M()};
}

// As above with nothing but the displacement clamped, to where both voxels are outside.
EK_HD EK_INLINE Tap linear_zero(F f, F p, float n) {
  const F low = F(-1.0f) - p, high = F(n) - p;
  f = min_(high, max_(low, f));
  const F offset = min_(floor_(f), high);
  const M first = both(greater_equal(offset, F(0.0f) - p), greater_equal(F(n - 1.0f) - p, offset));
  const M second = greater_equal(F(n - 2.0f) - p, offset);  // offset >= low makes p + offset + 1 >= 0
  return {offset, f - offset, first, second};
}

// The offset of the voxel nearest to p + f; halves round up.
EK_HD EK_INLINE F nearest_offset(F f, F low, F high) {
  f = min_(high, max_(low, f));
  const F below = min_(floor_(f), high);
  return select(greater_equal(f - below, F(0.5f)), below + F(1.0f), below);
}

// Exact at both ends: weight 0 gives a, weight 1 gives b.
EK_HD EK_INLINE F blend(F a, F b, F weight) { return a * (F(1.0f) - weight) + b * weight; }

}  // namespace EK_ISA
}  // namespace ek
