// Eight lanes of AVX2. The vocabulary is that of simd_scalar-inl.h, which says what each word means.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "common/half.h"
#include "common/platform.h"

#if !defined(__AVX2__) || !defined(__FMA__)
#error "compile this file with -mavx2 -mfma"
#endif

#define EK_ISA avx2

namespace ek {
namespace avx2 {

constexpr int kLanes = 8;

struct F {
  __m256 v;
  EK_MEMBER F() = default;
  EK_MEMBER F(__m256 lanes) : v(lanes) {}
  EK_MEMBER explicit F(float all) : v(_mm256_set1_ps(all)) {}
};
struct I {
  __m256i v;
  EK_MEMBER I() = default;
  EK_MEMBER I(__m256i lanes) : v(lanes) {}
  EK_MEMBER explicit I(int32_t all) : v(_mm256_set1_epi32(all)) {}
};
struct M {
  __m256 v;
};

EK_INLINE F operator+(F a, F b) { return _mm256_add_ps(a.v, b.v); }
EK_INLINE F operator-(F a, F b) { return _mm256_sub_ps(a.v, b.v); }
EK_INLINE F operator*(F a, F b) { return _mm256_mul_ps(a.v, b.v); }
EK_INLINE F operator/(F a, F b) { return _mm256_div_ps(a.v, b.v); }
EK_INLINE I operator+(I a, I b) { return _mm256_add_epi32(a.v, b.v); }
EK_INLINE I operator*(I a, I b) { return _mm256_mullo_epi32(a.v, b.v); }
EK_INLINE I operator-(I a, I b) { return _mm256_sub_epi32(a.v, b.v); }
EK_INLINE I operator|(I a, I b) { return _mm256_or_si256(a.v, b.v); }

EK_INLINE I int_iota() { return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7); }
EK_INLINE F iota() { return _mm256_cvtepi32_ps(int_iota().v); }
EK_INLINE __m256i first_lanes(int n) { return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), int_iota().v); }
EK_INLINE F load(const float* p) { return _mm256_loadu_ps(p); }
EK_INLINE F load_first(const float* p, int n) { return _mm256_maskload_ps(p, first_lanes(n)); }
EK_INLINE void store(float* p, F v) { _mm256_storeu_ps(p, v.v); }
EK_INLINE I load(const int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
EK_INLINE void store(int32_t* p, I v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v.v); }
EK_INLINE void store_first(float* p, F v, int n) { _mm256_maskstore_ps(p, first_lanes(n), v.v); }
EK_INLINE __m128i load_16_bytes(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
EK_INLINE __m128i load_8_bytes(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
EK_INLINE F load(const Half* p) { return _mm256_cvtph_ps(load_16_bytes(p)); }
EK_INLINE F load(const uint8_t* p) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(load_8_bytes(p))); }
EK_INLINE F load(const int16_t* p) { return _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(load_16_bytes(p))); }
EK_INLINE void store(Half* p, F v) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT));
}
EK_INLINE __m128i words(F v) {
  const __m256i lanes = _mm256_cvtps_epi32(v.v);
  return _mm_packs_epi32(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));
}
EK_INLINE void store(int16_t* p, F v) { _mm_storeu_si128(reinterpret_cast<__m128i*>(p), words(v)); }
EK_INLINE void store(uint8_t* p, F v) {
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words(v), words(v)));
}

EK_INLINE F sqrt_(F v) { return _mm256_sqrt_ps(v.v); }
EK_INLINE F abs_(F v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v.v); }
EK_INLINE F scale_by_last_bits(F value, F bits) {
  const __m256i turns = _mm256_slli_epi32(_mm256_castps_si256(bits.v), 23);
  return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(value.v), turns));
}
EK_INLINE F floor_(F v) { return _mm256_floor_ps(v.v); }
EK_INLINE F min_(F a, F b) { return _mm256_min_ps(a.v, b.v); }
EK_INLINE F max_(F a, F b) { return _mm256_max_ps(a.v, b.v); }
EK_INLINE M greater_equal(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GE_OQ)}; }
EK_INLINE M is_nan(F v) { return {_mm256_cmp_ps(v.v, v.v, _CMP_UNORD_Q)}; }
EK_INLINE M both(M a, M b) { return {_mm256_and_ps(a.v, b.v)}; }
EK_INLINE F select(M m, F a, F b) { return _mm256_blendv_ps(b.v, a.v, m.v); }
EK_INLINE I to_int(F v) { return _mm256_cvttps_epi32(v.v); }
EK_INLINE F to_float(I v) { return _mm256_cvtepi32_ps(v.v); }
EK_INLINE I min_(I a, I b) { return _mm256_min_epi32(a.v, b.v); }
EK_INLINE I max_(I a, I b) { return _mm256_max_epi32(a.v, b.v); }
EK_INLINE M greater_equal(I a, I b) {
  return {_mm256_castsi256_ps(_mm256_cmpeq_epi32(_mm256_max_epi32(a.v, b.v), a.v))};
}
EK_INLINE I select(M m, I a, I b) { return _mm256_blendv_epi8(b.v, a.v, _mm256_castps_si256(m.v)); }

EK_INLINE bool all(M m) { return _mm256_movemask_ps(m.v) == 0xff; }
EK_INLINE F gather(const float* base, I index) { return _mm256_i32gather_ps(base, index.v, 4); }
EK_INLINE F gather(const float* base, I index, M mask) {
  return _mm256_mask_i32gather_ps(_mm256_setzero_ps(), base, index.v, mask.v, 4);
}

// A pair is aligned to a float only, so no pointer to double may point to it. Both lines are one broadcast.
EK_INLINE __m256d pair(const float* at) {
  double bits;
  __builtin_memcpy(&bits, at, sizeof bits);
  return _mm256_set1_pd(bits);
}

EK_INLINE __m256 four_pairs(const float* base, int32_t a, int32_t b, int32_t c, int32_t d) {
  const __m256d low = _mm256_blend_pd(pair(base + a), pair(base + b), 0b0010);
  const __m256d high = _mm256_blend_pd(pair(base + c), pair(base + d), 0b1000);
  return _mm256_castpd_ps(_mm256_blend_pd(low, high, 0b1100));
}

// Gather instructions are slow on most AVX2 processors. A broadcasting 64-bit load and a blend need no
// shuffle port; the two shuffles at the end are the only ones.
EK_INLINE void gather_pairs(const float* base, const int32_t* at, F& first, F& second) {
  const __m256 p0145 = four_pairs(base, at[0], at[1], at[4], at[5]);
  const __m256 p2367 = four_pairs(base, at[2], at[3], at[6], at[7]);
  first = _mm256_shuffle_ps(p0145, p2367, _MM_SHUFFLE(2, 0, 2, 0));
  second = _mm256_shuffle_ps(p0145, p2367, _MM_SHUFFLE(3, 1, 3, 1));
}

// Two neighbours of 16 bits are one load of 32.
EK_INLINE __m256i eight_words(const void* base, const int32_t* at) {
  const auto word = [&](int lane) __attribute__((always_inline)) {
    int32_t bits;
    __builtin_memcpy(&bits, static_cast<const char*>(base) + 2 * static_cast<int64_t>(at[lane]), sizeof bits);
    return bits;
  };
  return _mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7));
}
EK_INLINE void gather_pairs(const Half* base, const int32_t* at, F& first, F& second) {
  const __m256i order = _mm256_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15, 0, 1, 4, 5, 8,
                                         9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  const __m256i apart =
      _mm256_permute4x64_epi64(_mm256_shuffle_epi8(eight_words(base, at), order), 0b11011000);
  first = _mm256_cvtph_ps(_mm256_castsi256_si128(apart));
  second = _mm256_cvtph_ps(_mm256_extracti128_si256(apart, 1));
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
  const __m256i both = _mm256_cvtepu16_epi32(eight_byte_pairs(base, at));
  first = _mm256_cvtepi32_ps(_mm256_and_si256(both, _mm256_set1_epi32(0xff)));
  second = _mm256_cvtepi32_ps(_mm256_srli_epi32(both, 8));
}
EK_INLINE void gather_pairs(const int16_t* base, const int32_t* at, F& first, F& second) {
  const __m256i both = eight_words(base, at);
  first = _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(both, 16), 16));
  second = _mm256_cvtepi32_ps(_mm256_srai_epi32(both, 16));
}

// Four channels of each of kLanes / 4 voxels (see sample/quads-inl.h).
#define EK_QUADS 1
EK_INLINE F load_quads(const float* const* at) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(at[0])), _mm_loadu_ps(at[1]), 1);
}
EK_INLINE F load_quads(const Half* const* at) {
  const __m128i low = load_8_bytes(at[0]), high = load_8_bytes(at[1]);
  return _mm256_cvtph_ps(_mm_unpacklo_epi64(low, high));
}
EK_INLINE F spread_quads(const float* p) {
  return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_broadcast_ss(p)), _mm_broadcast_ss(p + 1), 1);
}
EK_INLINE void store_quads(float* p, int64_t step, F v) {
  _mm_storeu_ps(p, _mm256_castps256_ps128(v.v));
  _mm_storeu_ps(p + step, _mm256_extractf128_ps(v.v, 1));
}
EK_INLINE void store_quads(Half* p, int64_t step, F v) {
  const __m128i halves = _mm256_cvtps_ph(v.v, _MM_FROUND_TO_NEAREST_INT);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), halves);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p + step), _mm_unpackhi_epi64(halves, halves));
}

EK_INLINE F pick(F low, F high, I index) {
  const __m256 a = _mm256_permutevar8x32_ps(low.v, index.v), b = _mm256_permutevar8x32_ps(high.v, index.v);
  return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_slli_epi32(index.v, 28)));
}

EK_INLINE M greater(F a, F b) { return {_mm256_cmp_ps(a.v, b.v, _CMP_GT_OQ)}; }
EK_INLINE int count(M m) { return __builtin_popcount(static_cast<unsigned>(_mm256_movemask_ps(m.v))); }

}  // namespace avx2
}  // namespace ek
