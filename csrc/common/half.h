// IEEE 754 binary16 as it is stored. Arithmetic is always in float32.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace ek {

struct Half {
  uint16_t bits;
};

EK_HD EK_INLINE float bits_to_float(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

EK_HD EK_INLINE uint32_t float_to_bits(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

EK_HD EK_INLINE float half_to_float(Half half) {
  const uint32_t sign = static_cast<uint32_t>(half.bits & 0x8000u) << 16;
  const uint32_t magnitude = half.bits & 0x7fffu;
  if (magnitude > 0x7c00u) return bits_to_float(sign | 0x7fc00000u | (magnitude << 13));  // NaN, made quiet
  if (magnitude == 0x7c00u) return bits_to_float(sign | 0x7f800000u);
  // The exponent is rebiased by a product, which is exact and covers subnormal numbers.
  const float value = bits_to_float(magnitude << 13) * 0x1p112f;
  return bits_to_float(float_to_bits(value) | sign);
}

// Rounds to nearest, halves to even.
EK_HD EK_INLINE Half float_to_half(float value) {
  const uint32_t bits = float_to_bits(value);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {  // rounds to 2^16 or more
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // subnormal: adding 0.5 leaves the rounded bits at the end
    half = float_to_bits(bits_to_float(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude + 0xfffu + (magnitude >> 13 & 1u) - 0x38000000u) >> 13;
  }
  return {static_cast<uint16_t>(sign | half)};
}

}  // namespace ek
