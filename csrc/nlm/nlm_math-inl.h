// The weight of a neighbour, for whatever F is in this namespace. Included after one of common/simd_*-inl.h.
#pragma once

#include "common/boundary.h"
#include "nlm/nlm_plan.h"

namespace ek {
namespace EK_ISA {

// What a sum of squared differences is multiplied by, given log2(e) / (strength^2 * voxels of a patch).
// Without noise it is so large that only patches that are the same have a weight.
EK_HD EK_INLINE F weight_scale(F scale, F sigma) { return min_(scale / (sigma * sigma), F(3e38f)); }

constexpr float kExponents = 12583039.0f;  // 1.5 * 2^23 + 127: its last bits are those of an exponent

// 2^-max(0, sum * scale - bias) with a relative error below 3e-7, and 0 below 2^-126. NaN stays.
EK_HD EK_INLINE F weight_of(F sum, F scale, F bias) {
  const F t = min_(F(127.0f), max_(F(0.0f), sum * scale - bias));
  const F exponent = F(kExponents) - t;
  const F r = t + (exponent - F(kExponents));
  F power = r * F(-0.00132647273f) + F(0.00967151299f);
  power = power * r + F(-0.0555073358f);
  power = power * r + F(0.240222424f);
  power = power * r + F(-0.693147004f);
  power = power * r + F(1.0f);
  return power * scale_by_last_bits(F(0.0f), exponent);
}

// What is written, given what is left of the sums over neighbours: u, or its square, plus a difference.
EK_HD EK_INLINE F finished(bool rician, F value, F difference, F sigma) {
  const F mean = value + difference;
  return rician ? sqrt_(max_(F(0.0f), mean - F(2.0f) * (sigma * sigma))) : mean;
}

// Which blocks along an axis hold a voxel: one where it is a centre, else two.
struct Holding {
  int64_t first, last;
};
EK_HD EK_INLINE Holding holding(int64_t at, int64_t step) {
  const int64_t first = at / step;
  return {first, first * step == at ? first : first + 1};
}

// How a map of sigma goes on: there is no place without noise.
EK_HD EK_INLINE Boundary map_boundary(Boundary boundary) {
  return boundary == Boundary::kZero ? Boundary::kEdge : boundary;
}

// Which of the channels of `like` (counted through the batch) belongs to channel c of the image: it may have
// one for all.
EK_HD EK_INLINE int64_t channel_of(const Tensor& like, const Tensor& image, int64_t channel) {
  const int64_t n = channel / image.c, c = channel - n * image.c;
  return (like.n == 1 ? 0 : n) * like.c + (like.c == 1 ? 0 : c);
}

}  // namespace EK_ISA
}  // namespace ek
