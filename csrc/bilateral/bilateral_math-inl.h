// The weights and sums of a bilateral filter, for whatever F is in this namespace: a scalar on the host or on
// a device, or the lanes of an instruction set. Included after one of common/simd_*-inl.h.
#pragma once

#include "common/platform.h"

namespace ek {
namespace EK_ISA {

// 2^(decay * difference^2), and 2^-60 where it would be less: that counts for nothing, and is no subnormal
// number. So it is for a NaN, as the difference itself spoils the sum.
// The exponent is cut into a whole number, by adding what leaves no room for a fraction, and the rest within
// +-1/2, for which there is a polynomial: exact at 0, elsewhere off by at most 3e-6 of the weight.
EK_HD EK_INLINE F range_weight(F difference, F decay) {
  const F exponent = max_(difference * (difference * decay), F(-60.0f));
  const F shifted = exponent + F(12582912.0f);  // 3 * 2^22
  const F rest = exponent - (shifted - F(12582912.0f));
  F sum = rest * F(0.0095828529f) + F(0.055906426f);
  sum = sum * rest + F(0.24024099f);
  sum = sum * rest + F(0.69312418f);
  sum = sum * rest + F(1.0f);
  return scale_by_last_bits(sum, shifted);
}

// The same where a guide differs: one that is not a number spoils the sum, as the image's voxels may not.
EK_HD EK_INLINE F guide_weight(F difference, F decay) {
  return select(is_nan(difference), difference, range_weight(difference, decay));
}

// What a voxel becomes. One that is not finite, or has such a voxel in its window, is not a number.
EK_HD EK_INLINE F filtered(F centre, F differences, F weights) {
  return centre + (differences / weights + (differences - differences));
}

}  // namespace EK_ISA
}  // namespace ek
