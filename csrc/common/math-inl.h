// Functions made of the vocabulary of an instruction set, which they are included after: the same bits on
// all.
#pragma once

#include "common/platform.h"

namespace ek {
namespace EK_ISA {

// 2^v for v <= 0, with a relative error below 2e-7; below -126 what 2^-126 is. NaN stays. The whole part of v
// is rounded off by adding a number that leaves no room for fractions, and a polynomial of minimal error
// takes the rest.
EK_HD EK_INLINE F exp2_of_negative(F v) {
  const F bounded = max_(F(-126.0f), v), sum = bounded + F(12582912.0f);
  const F r = bounded - (sum - F(12582912.0f));
  F power = r * F(1.32647273e-3f) + F(9.67151299e-3f);
  power = power * r + F(5.55073358e-2f);
  power = power * r + F(2.40222424e-1f);
  power = power * r + F(6.93147004e-1f);
  power = power * r + F(1.0f);
  return power * scale_by_last_bits(F(1.0f), sum);
}

}  // namespace EK_ISA
}  // namespace ek
