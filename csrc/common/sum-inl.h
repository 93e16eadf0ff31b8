// Sums whose bits depend neither on the instruction set nor on who sums. Included after one of
// common/simd_*-inl.h.
#pragma once

#include "common/platform.h"

namespace ek {
namespace EK_ISA {

// So many parts of a row's sum grow side by side, whatever the number of lanes.
constexpr int kSumParts = 16;

// The parts become one by halves.
EK_INLINE double sum_of_parts(double* part) {
  for (int half = kSumParts / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) part[i] += part[i + half];
  }
  return part[0];
}

// The sum of a row, in float64.
EK_INLINE double sum_of(const float* row, int64_t count) {
  double part[kSumParts] = {};
  int64_t x = 0;
  for (; x + kSumParts <= count; x += kSumParts) {
    for (int i = 0; i < kSumParts; ++i) part[i] += static_cast<double>(row[x + i]);
  }
  for (int i = 0; x + i < count; ++i) part[i] += static_cast<double>(row[x + i]);
  return sum_of_parts(part);
}

}  // namespace EK_ISA
}  // namespace ek
