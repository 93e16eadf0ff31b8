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

// Adds values, and their squares, to the parts of two sums.
EK_INLINE void add_moments(const float* row, int64_t count, double (&part)[2][kSumParts]) {
  for (int64_t x = 0; x < count; x += kSumParts) {
    for (int i = 0; i < kSumParts && x + i < count; ++i) {
      const double value = static_cast<double>(row[x + i]);
      part[0][i] += value;
      part[1][i] += value * value;
    }
  }
}

}  // namespace EK_ISA
}  // namespace ek
