// Between the types that arrays store and the float32 that is computed with. Included after one of
// common/simd_*-inl.h.
#pragma once

#include "common/half.h"
#include "common/platform.h"

namespace ek {
namespace EK_ISA {

EK_INLINE float widen(float v) { return v; }
EK_INLINE float widen(Half v) { return half_to_float(v); }
EK_INLINE float widen(uint8_t v) { return static_cast<float>(v); }
EK_INLINE float widen(int16_t v) { return static_cast<float>(v); }

// A sample as the type of `out` holds it: integers saturate, and have 0 for NaN. Rounding is left to the
// store.
EK_INLINE F fit(const float*, F v) { return v; }
EK_INLINE F fit(const Half*, F v) { return v; }
EK_INLINE F fit_integer(F v, float low, float high) {
  return select(is_nan(v), F(0.0f), min_(F(high), max_(F(low), v)));
}
EK_INLINE F fit(const uint8_t*, F v) { return fit_integer(v, 0.0f, 255.0f); }
EK_INLINE F fit(const int16_t*, F v) { return fit_integer(v, -32768.0f, 32767.0f); }

template <class T>
EK_INLINE void store_some(T* out, F value, int count) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (count == kLanes) {
      store(out, value);
    } else {
      store_first(out, value, count);
    }
  } else {
    T lanes[kLanes];
    store(lanes, value);
    __builtin_memcpy(out, lanes, count == kLanes ? sizeof lanes : count * sizeof(T));
  }
}

// The same for one element.
EK_INLINE void narrow(float* p, float v) { *p = v; }
EK_INLINE void narrow(Half* p, float v) { *p = float_to_half(v); }
EK_INLINE void narrow(uint8_t* p, float v) {
  *p = static_cast<uint8_t>(v > 0.0f ? __builtin_rintf(v < 255.0f ? v : 255.0f) : 0.0f);
}
EK_INLINE void narrow(int16_t* p, float v) {
  const float low = v > -32768.0f ? v : (v == v ? -32768.0f : 0.0f);
  *p = static_cast<int16_t>(__builtin_rintf(low < 32767.0f ? low : 32767.0f));
}

// The lanes of a load that is narrower than a vector, the rest 0.
template <class T>
EK_INLINE F load_some(const T* p, int count) {
  if (count == kLanes) return load(p);
  if constexpr (sizeof(T) == sizeof(float)) {
    return load_first(p, count);
  } else {
    T lanes[kLanes] = {};
    for (int i = 0; i < count; ++i) lanes[i] = p[i];
    return load(lanes);
  }
}

}  // namespace EK_ISA
}  // namespace ek
