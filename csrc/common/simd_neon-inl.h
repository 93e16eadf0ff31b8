// Four lanes of AArch64 Advanced SIMD. The vocabulary is that of simd_scalar-inl.h.
#pragma once

#include <arm_neon.h>

#include <cstdint>

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
EK_INLINE I operator+(I a, I b) { return vaddq_s32(a.v, b.v); }
EK_INLINE I operator*(I a, I b) { return vmulq_s32(a.v, b.v); }

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

EK_INLINE F floor_(F v) { return vrndmq_f32(v.v); }
// FMIN and FMAX order zeros and pass on either operand's NaN: comparing and choosing is what the others do.
EK_INLINE F min_(F a, F b) { return vbslq_f32(vcltq_f32(a.v, b.v), a.v, b.v); }
EK_INLINE F max_(F a, F b) { return vbslq_f32(vcgtq_f32(a.v, b.v), a.v, b.v); }
EK_INLINE M greater_equal(F a, F b) { return {vcgeq_f32(a.v, b.v)}; }
EK_INLINE M is_nan(F v) { return {vmvnq_u32(vceqq_f32(v.v, v.v))}; }
EK_INLINE M both(M a, M b) { return {vandq_u32(a.v, b.v)}; }
EK_INLINE F select(M m, F a, F b) { return vbslq_f32(m.v, a.v, b.v); }
EK_INLINE I to_int(F v) { return vcvtq_s32_f32(v.v); }

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

EK_INLINE bool consecutive(I index) {
  const int32x4_t expected = vaddq_s32(vdupq_laneq_s32(index.v, 0), int_iota().v);
  return vminvq_u32(vceqq_s32(index.v, expected)) != 0;
}

}  // namespace neon
}  // namespace ek
