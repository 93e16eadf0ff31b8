// One lane: the vocabulary of the kernels in plain C++. The oracle on every machine and, by another name,
// what a CUDA thread speaks (simd_device-inl.h). F holds float32 lanes, I int32 lanes, M a truth value per
// lane.
#pragma once

#include <cstdint>

#include "common/half.h"
#include "common/platform.h"

#if !defined(EK_ISA)
#define EK_ISA scalar
#endif

namespace ek {
namespace EK_ISA {

constexpr int kLanes = 1;
using F = float;
using I = int32_t;
using M = bool;

EK_INLINE F iota() { return 0.0f; }
EK_INLINE I int_iota() { return 0; }
EK_INLINE F load(const float* p) { return *p; }
EK_INLINE F load_first(const float* p, int) { return *p; }
EK_INLINE void store(float* p, F v) { *p = v; }
EK_INLINE I load(const int32_t* p) { return *p; }
EK_INLINE void store(int32_t* p, I v) { *p = v; }
EK_INLINE void store_first(float* p, F v, int) { *p = v; }
// Storage of fewer bits: loads widen, stores round to nearest (halves to even). An integer must be in range.
EK_INLINE F load(const Half* p) { return half_to_float(*p); }
EK_INLINE F load(const uint8_t* p) { return static_cast<F>(*p); }
EK_INLINE F load(const int16_t* p) { return static_cast<F>(*p); }
EK_INLINE void store(Half* p, F v) { *p = float_to_half(v); }
EK_INLINE void store(uint8_t* p, F v) { *p = static_cast<uint8_t>(__builtin_rintf(v)); }
EK_INLINE void store(int16_t* p, F v) { *p = static_cast<int16_t>(__builtin_rintf(v)); }

EK_HD EK_INLINE F sqrt_(F v) { return __builtin_sqrtf(v); }
EK_HD EK_INLINE F abs_(F v) { return __builtin_fabsf(v); }
// value * 2^n, where n is what `bits` has as its last bits when it is read as an integer.
EK_HD EK_INLINE F scale_by_last_bits(F value, F bits) {
  return bits_to_float(float_to_bits(value) + (float_to_bits(bits) << 23));
}
EK_HD EK_INLINE F floor_(F v) { return __builtin_floorf(v); }
// Both return the second operand when one is NaN.
EK_HD EK_INLINE F min_(F a, F b) { return a < b ? a : b; }
EK_HD EK_INLINE F max_(F a, F b) { return a > b ? a : b; }
EK_HD EK_INLINE M greater_equal(F a, F b) { return a >= b; }
EK_HD EK_INLINE M is_nan(F v) { return v != v; }
EK_HD EK_INLINE M both(M a, M b) { return a && b; }
EK_HD EK_INLINE F select(M m, F a, F b) { return m ? a : b; }
EK_HD EK_INLINE I to_int(F v) { return static_cast<I>(v); }
EK_HD EK_INLINE F to_float(I v) { return static_cast<F>(v); }
EK_HD EK_INLINE I min_(I a, I b) { return a < b ? a : b; }
EK_HD EK_INLINE I max_(I a, I b) { return a > b ? a : b; }
EK_HD EK_INLINE M greater_equal(I a, I b) { return a >= b; }
EK_HD EK_INLINE I select(M m, I a, I b) { return m ? a : b; }

EK_INLINE bool all(M m) { return m; }
EK_INLINE F gather(const float* base, I index) { return base[index]; }
// Lanes outside the mask are 0 and touch no memory.
EK_INLINE F gather(const float* base, I index, M mask) { return mask ? base[index] : 0.0f; }
// base[index] and base[index + 1], the indices in memory.
EK_INLINE void gather_pairs(const float* base, const int32_t* index, F& first, F& second) {
  first = base[*index];
  second = base[*index + 1];
}
EK_INLINE void gather_pairs(const Half* base, const int32_t* index, F& first, F& second) {
  first = half_to_float(base[*index]);
  second = half_to_float(base[*index + 1]);
}
EK_INLINE void gather_pairs(const uint8_t* base, const int32_t* index, F& first, F& second) {
  first = static_cast<F>(base[*index]);
  second = static_cast<F>(base[*index + 1]);
}
EK_INLINE void gather_pairs(const int16_t* base, const int32_t* index, F& first, F& second) {
  first = static_cast<F>(base[*index]);
  second = static_cast<F>(base[*index + 1]);
}
// Lane `index` of the 2 * kLanes lanes of both.
EK_INLINE F pick(F low, F high, I index) { return index == 0 ? low : high; }

EK_HD EK_INLINE M greater(F a, F b) { return a > b; }
// In how many lanes it is true.
EK_INLINE int count(M m) { return m; }

}  // namespace EK_ISA
}  // namespace ek
