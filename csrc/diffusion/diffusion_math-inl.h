// What flows through the face between two voxels, and what it makes of them. Included after one of
// common/simd_*-inl.h.
//
// `at(dz, dy, dx)` is the image that many voxels beside those that are computed.
#pragma once

#include "common/math-inl.h"
#include "diffusion/diffusion_plan.h"

namespace ek {
namespace EK_ISA {

EK_INLINE F squared(F v) { return v * v; }

// Given the difference across a face, and of every other axis the sum of what the two voxels have as
// differences over two voxels.
template <DiffusionForm kForm, int kCross>
EK_INLINE F flux(const DiffusionStep& step, F difference, const F (&cross)[kCross]) {
  F sum = squared(cross[0]);
  for (int i = 1; i < kCross; ++i) sum = sum + squared(cross[i]);
  const F magnitude = squared(difference) + sum * F(0.0625f);
  const F conductance = exp2_of_negative(magnitude * F(step.inverse_k));
  if (kForm == DiffusionForm::kGradient) return difference * conductance;
  return difference / sqrt_(magnitude + F(1e-10f)) * conductance;
}

// Differences over two voxels.
template <class At>
EK_INLINE F along_x(const At& at, int dz, int dy, int dx) {
  return at(dz, dy, dx + 1) - at(dz, dy, dx - 1);
}
template <class At>
EK_INLINE F along_y(const At& at, int dz, int dx) {
  return at(dz, 1, dx) - at(dz, -1, dx);
}
template <class At>
EK_INLINE F along_z(const At& at, int dy, int dx) {
  return at(1, dy, dx) - at(-1, dy, dx);
}

// Through the faces whose lower voxel is `low` (-1 or 0) along the axis.
template <DiffusionForm kForm, bool kFlat, class At>
EK_INLINE F flux_x(const DiffusionStep& step, const At& at, int low) {
  const F difference = at(0, 0, low + 1) - at(0, 0, low);
  const F z = along_z(at, 0, low) + along_z(at, 0, low + 1);
  if constexpr (kFlat) {
    const F cross[] = {z};
    return flux<kForm>(step, difference, cross);
  } else {
    const F cross[] = {along_y(at, 0, low) + along_y(at, 0, low + 1), z};
    return flux<kForm>(step, difference, cross);
  }
}
template <DiffusionForm kForm, bool kFlat, class At>
EK_INLINE F flux_y(const DiffusionStep& step, const At& at, int low) {
  const F difference = at(0, low + 1, 0) - at(0, low, 0);
  const F cross[] = {along_x(at, 0, low, 0) + along_x(at, 0, low + 1, 0),
                     along_z(at, low, 0) + along_z(at, low + 1, 0)};
  return flux<kForm>(step, difference, cross);
}
template <DiffusionForm kForm, bool kFlat, class At>
EK_INLINE F flux_z(const DiffusionStep& step, const At& at, int low) {
  const F difference = at(low + 1, 0, 0) - at(low, 0, 0);
  const F x = along_x(at, low, 0, 0) + along_x(at, low + 1, 0, 0);
  if constexpr (kFlat) {
    const F cross[] = {x};
    return flux<kForm>(step, difference, cross);
  } else {
    const F cross[] = {x, along_y(at, low, 0) + along_y(at, low + 1, 0)};
    return flux<kForm>(step, difference, cross);
  }
}

// What the upwind scheme takes of the differences to the voxel before and to the next one.
EK_INLINE F upwind(M rises, F before, F next) {
  const F zero(0.0f), low = select(rises, before, next), high = select(rises, next, before);
  return squared(min_(low, zero)) + squared(max_(high, zero));
}

// The voxel after a step, given what flows in along all axes.
template <DiffusionForm kForm, bool kFlat, class At>
EK_INLINE F diffused(const DiffusionStep& step, const At& at, F inflow) {
  const F centre = at(0, 0, 0);
  if constexpr (kForm == DiffusionForm::kGradient) {
    return centre + inflow * F(step.time_step);
  } else {
    const M rises = greater(inflow, F(0.0f));
    F sum = upwind(rises, centre - at(0, 0, -1), at(0, 0, 1) - centre);
    if constexpr (!kFlat) sum = sum + upwind(rises, centre - at(0, -1, 0), at(0, 1, 0) - centre);
    sum = sum + upwind(rises, centre - at(-1, 0, 0), at(1, 0, 0) - centre);
    return centre + sqrt_(sum) * inflow * F(step.time_step);
  }
}

// The squared differences over two voxels, summed over the axes.
template <bool kFlat, class At>
EK_INLINE F squared_gradient(const At& at) {
  F sum = squared(along_x(at, 0, 0, 0));
  if constexpr (!kFlat) sum = sum + squared(along_y(at, 0, 0));
  return sum + squared(along_z(at, 0, 0));
}

}  // namespace EK_ISA
}  // namespace ek
