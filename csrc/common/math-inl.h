// Functions made of the vocabulary of an instruction set, which they are included after: the same bits on
// all.
#pragma once

#include "common/platform.h"

namespace ek {
namespace EK_ISA {

// e^v with a relative error below 2e-7; 0 below -87, and above 88 what e^88 is. NaN stays.
// The range is cut into multiples of ln 2, which is subtracted in two parts so that nothing is lost (Cody and
// Waite, 1980); what remains goes into a polynomial of minimal error.
EK_HD EK_INLINE F exp_(F v) {
  const F bounded = min_(F(88.0f), max_(F(-87.0f), v));
  const F turns = floor_(bounded * F(1.44269504f) + F(0.5f));
  const F n = select(is_nan(turns), F(0.0f), turns);
  const F r = (bounded - n * F(0.693359375f)) + n * F(2.12194440e-4f);
  F sum = r * F(1.98756915e-4f) + F(1.39819995e-3f);
  sum = sum * r + F(8.33345191e-3f);
  sum = sum * r + F(4.16657960e-2f);
  sum = sum * r + F(1.66666655e-1f);
  sum = sum * r + F(0.5f);
  const F mantissa = (sum * (r * r) + r) + F(1.0f);
  return select(greater(F(-87.0f), v), F(0.0f), mantissa * pow2(to_int(n)));
}

// 2^v for v <= 0, with a relative error below 2e-7 and in half the time of exp_(); below -126 what 2^-126 is.
// NaN stays. The whole part of v is rounded off by adding a number that leaves no room for fractions, and a
// polynomial of minimal error takes the rest.
EK_HD EK_INLINE F exp2_of_negative(F v) {
  const F bounded = max_(F(-126.0f), v), sum = bounded + F(12582912.0f);
  const F r = bounded - (sum - F(12582912.0f));
  F power = r * F(1.32647273e-3f) + F(9.67151299e-3f);
  power = power * r + F(5.55073358e-2f);
  power = power * r + F(2.40222424e-1f);
  power = power * r + F(6.93147004e-1f);
  power = power * r + F(1.0f);
  return power * pow2_of_sum(sum);
}

}  // namespace EK_ISA
}  // namespace ek
