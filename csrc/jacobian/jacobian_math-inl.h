// The mathematics of one voxel's Jacobian, for whatever F is in this namespace: a scalar on the host or on a
// device, or the lanes of an instruction set. Included after one of common/simd_*-inl.h.
//
// Differences are not divided by the voxels between their two ends (two, or one at a border): the identity is
// multiplied by them instead, and the determinant divided at the end. These are powers of two, so that the
// result has the same bits, save beyond 2^125 and among subnormal numbers.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace ek {
namespace EK_ISA {

// The two voxels along an axis whose difference is the derivative, as offsets from the voxel itself. Along an
// axis of one voxel they are one and the same, and the derivative is 0.
struct Ends {
  int64_t low, high;
};

EK_HD EK_INLINE Ends ends(int64_t at, int64_t length) { return {at > 0 ? -1 : 0, at + 1 < length ? 1 : 0}; }

EK_HD EK_INLINE Ends operator*(Ends e, int64_t stride) { return {e.low * stride, e.high * stride}; }

EK_HD EK_INLINE float voxels_between(Ends e) { return e.high - e.low == 2 ? 2.0f : 1.0f; }

// Rows are components, columns are axes.
EK_HD EK_INLINE F determinant(const F (&m)[2][2]) { return m[0][0] * m[1][1] - m[0][1] * m[1][0]; }

EK_HD EK_INLINE F determinant(const F (&m)[3][3]) {
  const F first = m[1][1] * m[2][2] - m[1][2] * m[2][1];
  const F second = m[1][2] * m[2][0] - m[1][0] * m[2][2];
  const F third = m[1][0] * m[2][1] - m[1][1] * m[2][0];
  return m[0][0] * first + m[0][1] * second + m[0][2] * third;
}

// det(I + dflow/dp), given the differences and how many voxels are between their ends along each axis.
template <int kDims>
EK_HD EK_INLINE F volume_change(F (&m)[kDims][kDims], float z_step, float y_step, F x_step) {
  if constexpr (kDims == 3) m[0][0] = m[0][0] + F(z_step);
  m[kDims - 2][kDims - 2] = m[kDims - 2][kDims - 2] + F(y_step);
  m[kDims - 1][kDims - 1] = m[kDims - 1][kDims - 1] + x_step;
  const F x_share = F(1.5f) - F(0.5f) * x_step;  // 1 / x_step
  return determinant(m) * (x_share * F(1.0f / (z_step * y_step)));
}

}  // namespace EK_ISA
}  // namespace ek
