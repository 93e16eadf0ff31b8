// Sixteen lanes of AVX-512 (F, VL, BW, DQ). The vocabulary is that of simd_scalar-inl.h.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "common/half.h"
#include "common/platform.h"

#if !defined(__AVX512F__) || !defined(__AVX512DQ__)
#error "compile this file with -mavx512f -mavx512vl -mavx512bw -mavx512dq"
#endif

#define EK_ISA avx512

namespace ek {
namespace avx512 {

constexpr int kLanes = 16;

struct F {
  __m512 v;
  EK_MEMBER F() = default;
  EK_MEMBER F(__m512 lanes) : v(lanes) {}
  EK_MEMBER explicit F(float all) : v(_mm512_set1_ps(all)) {}
};
struct I {
  __m512i v;
  EK_MEMBER I() = default;
  EK_MEMBER I(__m512i lanes) : v(lanes) {}
  EK_MEMBER explicit I(int32_t all) : v(_mm512_set1_epi32(all)) {}
};
using M = __mmask16;

EK_INLINE F operator+(F a, F b) { return _mm512_add_ps(a.v, b.v); }
EK_INLINE F operator-(F a, F b) { return _mm512_sub_ps(a.v, b.v); }
EK_INLINE F operator*(F a, F b) { return _mm512_mul_ps(a.v, b.v); }
EK_INLINE F operator/(F a, F b) { return _mm512_div_ps(a.v, b.v); }
EK_INLINE I operator+(I a, I b) { return _mm512_add_epi32(a.v, b.v); }
EK_INLINE I operator*(I a, I b) { return _mm512_mullo_epi32(a.v, b.v); }
EK_INLINE I operator-(I a, I b) { return _mm512_sub_epi32(a.v, b.v); }
EK_INLINE I operator|(I a, I b) { return _mm512_or_si512(a.v, b.v); }

EK_INLINE I int_iota() { return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
EK_INLINE F iota() { return _mm512_cvtepi32_ps(int_iota().v); }
EK_INLINE M first_lanes(int n) { return static_cast<M>((1u << n) - 1u); }
EK_INLINE F load(const float* p) { return _mm512_loadu_ps(p); }
EK_INLINE F load_first(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
EK_INLINE void store(float* p, F v) { _mm512_storeu_ps(p, v.v); }
EK_INLINE I load(const int32_t* p) { return _mm512_loadu_si512(p); }
EK_INLINE void store(int32_t* p, I v) { _mm512_storeu_si512(p, v.v); }
EK_INLINE void store_first(float* p, F v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v.v); }
EK_INLINE __m256i load_32_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
EK_INLINE F load(const Half* p) { return _mm512_cvtph_ps(load_32_bytes(p)); }
EK_INLINE F load(const uint8_t* p) {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
}
EK_INLINE F load(const int16_t* p) { return _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(load_32_bytes(p))); }
EK_INLINE void store(Half* p, F v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT));
}
EK_INLINE void store(int16_t* p, F v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(v.v)));
}
EK_INLINE void store(uint8_t* p, F v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v.v)));
}

EK_INLINE F sqrt_(F v) { return _mm512_sqrt_ps(v.v); }
EK_INLINE F abs_(F v) { return _mm512_abs_ps(v.v); }
EK_INLINE F scale_by_last_bits(F value, F bits) {
  const __m512i turns = _mm512_slli_epi32(_mm512_castps_si512(bits.v), 23);
  return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(value.v), turns));
}
EK_INLINE F floor_(F v) { return _mm512_roundscale_ps(v.v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
EK_INLINE F min_(F a, F b) { return _mm512_min_ps(a.v, b.v); }
EK_INLINE F max_(F a, F b) { return _mm512_max_ps(a.v, b.v); }
EK_INLINE M greater_equal(F a, F b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GE_OQ); }
EK_INLINE M is_nan(F v) { return _mm512_cmp_ps_mask(v.v, v.v, _CMP_UNORD_Q); }
EK_INLINE M both(M a, M b) { return a & b; }
EK_INLINE F select(M m, F a, F b) { return _mm512_mask_blend_ps(m, b.v, a.v); }
EK_INLINE I to_int(F v) { return _mm512_cvttps_epi32(v.v); }
EK_INLINE F to_float(I v) { return _mm512_cvtepi32_ps(v.v); }
EK_INLINE I min_(I a, I b) { return _mm512_min_epi32(a.v, b.v); }
EK_INLINE I max_(I a, I b) { return _mm512_max_epi32(a.v, b.v); }
EK_INLINE M greater_equal(I a, I b) { return _mm512_cmpge_epi32_mask(a.v, b.v); }
EK_INLINE I select(M m, I a, I b) { return _mm512_mask_blend_epi32(m, b.v, a.v); }

EK_INLINE bool all(M m) { return m == 0xffff; }
EK_INLINE F gather(const float* base, I index) { return _mm512_i32gather_ps(index.v, base, 4); }
EK_INLINE F gather(const float* base, I index, M mask) {
  return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), mask, index.v, base, 4);
}

EK_INLINE void gather_pairs(const float* base, const int32_t* index, F& first, F& second) {
  const auto eight = [&](const int32_t* at) __attribute__((always_inline)) {
    const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return _mm512_castpd_ps(_mm512_i32gather_pd(lanes, base, 4));
  };
  const __m512 low = eight(index), high = eight(index + 8);
  const __m512i even = _mm512_add_epi32(int_iota().v, int_iota().v);
  first = _mm512_permutex2var_ps(low, even, high);
  second = _mm512_permutex2var_ps(low, _mm512_add_epi32(even, _mm512_set1_epi32(1)), high);
}

// Two neighbours of 16 bits are one lane of 32.
EK_INLINE void gather_pairs(const Half* base, const int32_t* index, F& first, F& second) {
  const __m512i both = _mm512_i32gather_epi32(_mm512_loadu_si512(index), base, 2);
  first = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(both));
  second = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(both, 16)));
}
// Two neighbours of 8 bits are one load of 16.
EK_INLINE __m128i eight_byte_pairs(const uint8_t* base, const int32_t* at) {
  const auto word = [&](int lane) __attribute__((always_inline)) {
    int16_t bits;
    __builtin_memcpy(&bits, base + at[lane], sizeof bits);
    return bits;
  };
  return _mm_setr_epi16(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7));
}
EK_INLINE void gather_pairs(const uint8_t* base, const int32_t* at, F& first, F& second) {
  const __m256i words = _mm256_set_m128i(eight_byte_pairs(base, at + 8), eight_byte_pairs(base, at));
  const __m512i both = _mm512_cvtepu16_epi32(words);
  first = _mm512_cvtepi32_ps(_mm512_and_si512(both, _mm512_set1_epi32(0xff)));
  second = _mm512_cvtepi32_ps(_mm512_srli_epi32(both, 8));
}
EK_INLINE void gather_pairs(const int16_t* base, const int32_t* index, F& first, F& second) {
  const __m512i both = _mm512_i32gather_epi32(_mm512_loadu_si512(index), base, 2);
  first = _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(both, 16), 16));
  second = _mm512_cvtepi32_ps(_mm512_srai_epi32(both, 16));
}

// Four channels of each of kLanes / 4 voxels (see sample/quads-inl.h).
#define EK_QUADS 1
EK_INLINE F load_quads(const float* const* at) {
  const __m512 first = _mm512_castps128_ps512(_mm_loadu_ps(at[0]));
  const __m512 two = _mm512_insertf32x4(first, _mm_loadu_ps(at[1]), 1);
  return _mm512_insertf32x4(_mm512_insertf32x4(two, _mm_loadu_ps(at[2]), 2), _mm_loadu_ps(at[3]), 3);
}
EK_INLINE F load_quads(const Half* const* at) {
  const auto two = [](const Half* a, const Half* b) __attribute__((always_inline)) {
    return _mm_unpacklo_epi64(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(a)),
                              _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b)));
  };
  return _mm512_cvtph_ps(_mm256_set_m128i(two(at[2], at[3]), two(at[0], at[1])));
}
EK_INLINE F spread_quads(const float* p) {
  const __m512i order = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  return _mm512_permutexvar_ps(order, _mm512_castps128_ps512(_mm_loadu_ps(p)));
}
EK_INLINE void store_quads(float* p, int64_t step, F v) {
  if (step == 4) return store(p, v);
  _mm_storeu_ps(p, _mm512_castps512_ps128(v.v));
  _mm_storeu_ps(p + step, _mm512_extractf32x4_ps(v.v, 1));
  _mm_storeu_ps(p + 2 * step, _mm512_extractf32x4_ps(v.v, 2));
  _mm_storeu_ps(p + 3 * step, _mm512_extractf32x4_ps(v.v, 3));
}
EK_INLINE void store_quads(Half* p, int64_t step, F v) {
  alignas(32) Half halves[kLanes];
  store(halves, v);
  for (int i = 0; i < kLanes / 4; ++i) __builtin_memcpy(p + i * step, halves + 4 * i, 4 * sizeof(Half));
}

EK_INLINE F pick(F low, F high, I index) { return _mm512_permutex2var_ps(low.v, index.v, high.v); }

EK_INLINE M greater(F a, F b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ); }
EK_INLINE int count(M m) { return __builtin_popcount(m); }

}  // namespace avx512
}  // namespace ek
