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

}  // namespace EK_ISA
}  // namespace ek
