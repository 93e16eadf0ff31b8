// Four lanes of AArch64 Advanced SIMD. The vocabulary is that of simd_scalar-inl.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>

#include "common/half.h"
#include "common/platform.h"

#if !defined(__aarch64__)
#error "compile this file for AArch64"
#endif

#define EK_ISA neon

namespace ek {
namespace neon {

constexpr int kLanes = 4;

struct F {
  float32x4_t v;
  EK_MEMBER F() = default;
  EK_MEMBER F(float32x4_t lanes) : v(lanes) {}
  EK_MEMBER explicit F(float all) : v(vdupq_n_f32(all)) {}
};
struct I {
  int32x4_t v;
  EK_MEMBER I() = default;
  EK_MEMBER I(int32x4_t lanes) : v(lanes) {}
  EK_MEMBER explicit I(int32_t all) : v(vdupq_n_s32(all)) {}
};
struct M {
  uint32x4_t v;
};

EK_INLINE F operator+(F a, F b) { return vaddq_f32(a.v, b.v); }
EK_INLINE F operator-(F a, F b) { return vsubq_f32(a.v, b.v); }
EK_INLINE F operator*(F a, F b) { return vmulq_f32(a.v, b.v); }
EK_INLINE F operator/(F a, F b) { return vdivq_f32(a.v, b.v); }
EK_INLINE I operator+(I a, I b) { return vaddq_s32(a.v, b.v); }
EK_INLINE I operator*(I a, I b) { return vmulq_s32(a.v, b.v); }
EK_INLINE I operator-(I a, I b) { return vsubq_s32(a.v, b.v); }
EK_INLINE I operator|(I a, I b) { return vorrq_s32(a.v, b.v); }

EK_INLINE I int_iota() {
  alignas(16) static const int32_t lanes[kLanes] = {0, 1, 2, 3};
  return vld1q_s32(lanes);
}
EK_INLINE F iota() { return vcvtq_f32_s32(int_iota().v); }
EK_INLINE F load(const float* p) { return vld1q_f32(p); }
// There is no masked load or store; only the last lanes of a row come here.
EK_INLINE F load_first(const float* p, int n) {
  alignas(16) float lanes[kLanes] = {};
  for (int i = 0; i < n; ++i) lanes[i] = p[i];
  return vld1q_f32(lanes);
}
EK_INLINE void store(float* p, F v) { vst1q_f32(p, v.v); }
EK_INLINE I load(const int32_t* p) { return vld1q_s32(p); }
EK_INLINE void store(int32_t* p, I v) { vst1q_s32(p, v.v); }
EK_INLINE void store_first(float* p, F v, int n) {
  alignas(16) float lanes[kLanes];
  vst1q_f32(lanes, v.v);
  for (int i = 0; i < n; ++i) p[i] = lanes[i];
}

EK_INLINE F load(const Half* p) {
  return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const uint16_t*>(p))));
}
EK_INLINE F load(const int16_t* p) { return vcvtq_f32_s32(vmovl_s16(vld1_s16(p))); }
EK_INLINE F load(const uint8_t* p) {
  uint32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bytes))))));
}
EK_INLINE void store(Half* p, F v) {
  vst1_u16(reinterpret_cast<uint16_t*>(p), vreinterpret_u16_f16(vcvt_f16_f32(v.v)));
}
EK_INLINE void store(int16_t* p, F v) { vst1_s16(p, vmovn_s32(vcvtnq_s32_f32(v.v))); }
EK_INLINE void store(uint8_t* p, F v) {
  const uint16x4_t half = vmovn_u32(vcvtnq_u32_f32(v.v));
  const uint32_t bytes = vget_lane_u32(vreinterpret_u32_u8(vmovn_u16(vcombine_u16(half, half))), 0);
  __builtin_memcpy(p, &bytes, sizeof bytes);
}

EK_INLINE F sqrt_(F v) { return vsqrtq_f32(v.v); }
EK_INLINE F abs_(F v) { return vabsq_f32(v.v); }
EK_INLINE F scale_by_last_bits(F value, F bits) {
  const int32x4_t turns = vshlq_n_s32(vreinterpretq_s32_f32(bits.v), 23);
  return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(value.v), turns));
}
EK_INLINE F floor_(F v) { return vrndmq_f32(v.v); }
// FMIN and FMAX order zeros and pass on either operand's NaN: comparing and choosing is what the others do.
EK_INLINE F min_(F a, F b) { return vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v); }
EK_INLINE F max_(F a, F b) { return vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v); }
EK_INLINE M greater_equal(F a, F b) { return {vcgeq_f32(a.v, b.v)}; }
EK_INLINE M is_nan(F v) { return {vmvnq_u32(vceqq_f32(v.v, v.v))}; }
EK_INLINE M both(M a, M b) { return {vandq_u32(a.v, b.v)}; }
EK_INLINE F select(M m, F a, F b) { return vbslq_f32(m.v, a.v, b.v); }
EK_INLINE I to_int(F v) { return vcvtq_s32_f32(v.v); }
EK_INLINE F to_float(I v) { return vcvtq_f32_s32(v.v); }
EK_INLINE I min_(I a, I b) { return vminq_s32(a.v, b.v); }
EK_INLINE I max_(I a, I b) { return vmaxq_s32(a.v, b.v); }
EK_INLINE M greater_equal(I a, I b) { return {vcgeq_s32(a.v, b.v)}; }
EK_INLINE I select(M m, I a, I b) { return vbslq_s32(m.v, a.v, b.v); }

EK_INLINE bool all(M m) { return vminvq_u32(m.v) != 0; }

EK_INLINE F gather(const float* base, I index) {
  float32x4_t lanes = vld1q_dup_f32(base + vgetq_lane_s32(index.v, 0));
  lanes = vld1q_lane_f32(base + vgetq_lane_s32(index.v, 1), lanes, 1);
  lanes = vld1q_lane_f32(base + vgetq_lane_s32(index.v, 2), lanes, 2);
  return vld1q_lane_f32(base + vgetq_lane_s32(index.v, 3), lanes, 3);
}
EK_INLINE F gather(const float* base, I index, M mask) {
  float32x4_t lanes = vdupq_n_f32(0.0f);
  if (vgetq_lane_u32(mask.v, 0)) lanes = vld1q_lane_f32(base + vgetq_lane_s32(index.v, 0), lanes, 0);
  if (vgetq_lane_u32(mask.v, 1)) lanes = vld1q_lane_f32(base + vgetq_lane_s32(index.v, 1), lanes, 1);
  if (vgetq_lane_u32(mask.v, 2)) lanes = vld1q_lane_f32(base + vgetq_lane_s32(index.v, 2), lanes, 2);
  if (vgetq_lane_u32(mask.v, 3)) lanes = vld1q_lane_f32(base + vgetq_lane_s32(index.v, 3), lanes, 3);
  return lanes;
}

// One 64-bit load per lane brings both corners; two unzips part the first from the second.
EK_INLINE void gather_pairs(const float* base, const int32_t* at, F& first, F& second) {
  const float32x4_t low = vcombine_f32(vld1_f32(base + at[0]), vld1_f32(base + at[1]));
  const float32x4_t high = vcombine_f32(vld1_f32(base + at[2]), vld1_f32(base + at[3]));
  first = vuzp1q_f32(low, high);
  second = vuzp2q_f32(low, high);
}

// Two neighbours of 16 bits are one load of 32.
EK_INLINE uint16x8_t four_words(const void* base, const int32_t* at) {
  uint32x4_t words = vdupq_n_u32(0);
  const auto word = [&](int lane) __attribute__((always_inline)) {
    uint32_t bits;
    __builtin_memcpy(&bits, static_cast<const char*>(base) + 2 * static_cast<int64_t>(at[lane]), sizeof bits);
    return bits;
  };
  words = vsetq_lane_u32(word(0), words, 0);
  words = vsetq_lane_u32(word(1), words, 1);
  words = vsetq_lane_u32(word(2), words, 2);
  return vreinterpretq_u16_u32(vsetq_lane_u32(word(3), words, 3));
}
EK_INLINE void gather_pairs(const Half* base, const int32_t* at, F& first, F& second) {
  const uint16x8_t words = four_words(base, at);
  first = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(vuzp1q_u16(words, words))));
  second = vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(vuzp2q_u16(words, words))));
}
// Two neighbours of 8 bits are one load of 16.
EK_INLINE void gather_pairs(const uint8_t* base, const int32_t* at, F& first, F& second) {
  uint16x4_t words = vdup_n_u16(0);
  const auto word = [&](int lane) __attribute__((always_inline)) {
    uint16_t bits;
    __builtin_memcpy(&bits, base + at[lane], sizeof bits);
    return bits;
  };
  words = vset_lane_u16(word(0), words, 0);
  words = vset_lane_u16(word(1), words, 1);
  words = vset_lane_u16(word(2), words, 2);
  const uint32x4_t both = vmovl_u16(vset_lane_u16(word(3), words, 3));
  first = vcvtq_f32_u32(vandq_u32(both, vdupq_n_u32(0xff)));
  second = vcvtq_f32_u32(vshrq_n_u32(both, 8));
}
EK_INLINE void gather_pairs(const int16_t* base, const int32_t* at, F& first, F& second) {
  const int16x8_t words = vreinterpretq_s16_u16(four_words(base, at));
  first = vcvtq_f32_s32(vmovl_s16(vget_low_s16(vuzp1q_s16(words, words))));
  second = vcvtq_f32_s32(vmovl_s16(vget_low_s16(vuzp2q_s16(words, words))));
}

// Four channels of each of kLanes / 4 voxels (see sample/quads-inl.h).
#define EK_QUADS 1
EK_INLINE F load_quads(const float* const* at) { return load(at[0]); }
EK_INLINE F load_quads(const Half* const* at) { return load(at[0]); }
EK_INLINE F spread_quads(const float* p) { return vld1q_dup_f32(p); }
EK_INLINE void store_quads(float* p, int64_t, F v) { store(p, v); }
EK_INLINE void store_quads(Half* p, int64_t, F v) { store(p, v); }

EK_INLINE F pick(F low, F high, I index) {
  const uint8x16x2_t table = {vreinterpretq_u8_f32(low.v), vreinterpretq_u8_f32(high.v)};
  const int32x4_t bytes = vaddq_s32(vmulq_s32(index.v, vdupq_n_s32(0x04040404)), vdupq_n_s32(0x03020100));
  return vreinterpretq_f32_u8(vqtbl2q_u8(table, vreinterpretq_u8_s32(bytes)));
}

EK_INLINE M greater(F a, F b) { return {vcgtq_f32(a.v, b.v)}; }
EK_INLINE int count(M m) { return static_cast<int>(vaddvq_u32(vshrq_n_u32(m.v, 31))); }

}  // namespace neon
}  // namespace ek
