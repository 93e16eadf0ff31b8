// Speckle-reducing anisotropic diffusion, compiled once per instruction set. Included after one of
// common/simd_*-inl.h; nothing of the standard library may be used here (see platform.h).
//
// A step has two stages: how much diffuses into each voxel, and what that makes of them.
#pragma once

#include "common/sum-inl.h"
#include "srad/srad_plan.h"
#include "stencil/stencil-inl.h"

namespace ek {
namespace EK_ISA {

// The coefficient of diffusion, given what neighbours are worth: before and behind, axis by axis.
//
// The squared coefficient of variation of the neighbours is their mean squared difference, twice, less the
// square of their mean difference, over the square of their mean.
template <int kDims>
EK_INLINE F diffusivity(const SradStep& step, float half_share, F centre, const F (&before)[kDims],
                        const F (&next)[kDims]) {
  F sum(0.0f), squares(0.0f);
  for (int i = 0; i < kDims; ++i) {
    const F back = before[i] - centre, ahead = next[i] - centre;
    sum = sum + (back + ahead);
    squares = squares + (back * back + ahead * ahead);
  }
  const F change = sum * F(half_share), mean = centre + change;
  const F variance = squares * F(2.0f * half_share) - change * change;
  const F q = variance / max_(F(1e-30f), mean * mean);
  const F excess = (q - F(step.square)) * F(step.inverse);
  return F(1.0f) / (F(1.0f) + max_(F(0.0f), excess));
}

// The voxel after a step: what is ahead comes with the diffusivity there.
template <int kDims>
EK_INLINE F diffused(float rate, F centre, F coefficient, const F (&before)[kDims], const F (&next)[kDims],
                     const F (&there)[kDims]) {
  F inflow(0.0f);
  for (int i = 0; i < kDims; ++i) {
    inflow = inflow + (there[i] * (next[i] - centre) - coefficient * (centre - before[i]));
  }
  return centre + inflow * F(rate);
}

#if !defined(EK_DEVICE)  // whose threads have a voxel each

// Fields: the image, and the coefficient of diffusion, which even stages lack.
template <int kDims>
struct SradSweep {
  static constexpr int kResult = 0;

  const SradPlan& plan;

  static EK_MEMBER StencilShape shape() {
    StencilShape shape;
    shape.fields = 2;
    shape.stages = 2;
    return shape;
  }

  EK_MEMBER void begin(const Sweep&, int64_t, int64_t) const {}
  EK_MEMBER void seal_rows(const Sweep& sweep, int s, int64_t z, int64_t y) const {
    seal(sweep.row(s, 0, z, y), sweep.pass.image.w);
  }

  // Rows of a field before and behind one, along each axis.
  EK_MEMBER void rows_beside(const Sweep& sweep, int s, int field, int64_t z, int64_t y,
                             const float* (&before)[3], const float* (&next)[3]) const {
    before[0] = sweep.row(s, field, z, y) - 1;
    next[0] = before[0] + 2;
    before[1] = sweep.near(s, field, z - 1, y);
    next[1] = sweep.near(s, field, z + 1, y);
    if (kDims == 3) {
      before[2] = sweep.near(s, field, z, y - 1);
      next[2] = sweep.near(s, field, z, y + 1);
    }
  }

  EK_MEMBER void weigh(const Sweep& sweep, int s, int64_t z, int64_t y) const {
    const SradStep step = plan.steps[s / 2];
    const float *image = sweep.row(s - 1, 0, z, y), *before[3], *next[3];
    rows_beside(sweep, s - 1, 0, z, y, before, next);
    float *to = sweep.row(s, 0, z, y), *coefficient = sweep.row(s, 1, z, y);
    for (int64_t x = 0; x < sweep.pass.image.w; x += kLanes) {
      F back[kDims], ahead[kDims];
      for (int i = 0; i < kDims; ++i) back[i] = load(before[i] + x), ahead[i] = load(next[i] + x);
      const F centre = load(image + x);
      store(to + x, centre);
      store(coefficient + x, diffusivity(step, plan.half_share, centre, back, ahead));
    }
    seal(to, sweep.pass.image.w);
    seal(coefficient, sweep.pass.image.w);
  }

  EK_MEMBER void move(const Sweep& sweep, int s, int64_t z, int64_t y) const {
    const float *image = sweep.row(s - 1, 0, z, y), *before[3], *next[3], *none[3], *there[3];
    const float* coefficient = sweep.row(s - 1, 1, z, y);
    rows_beside(sweep, s - 1, 0, z, y, before, next);
    rows_beside(sweep, s - 1, 1, z, y, none, there);
    float* to = sweep.row(s, 0, z, y);
    for (int64_t x = 0; x < sweep.pass.image.w; x += kLanes) {
      F back[kDims], ahead[kDims], share[kDims];
      for (int i = 0; i < kDims; ++i) {
        back[i] = load(before[i] + x), ahead[i] = load(next[i] + x), share[i] = load(there[i] + x);
      }
      store(to + x, diffused(plan.rate, load(image + x), load(coefficient + x), back, ahead, share));
    }
    seal(to, sweep.pass.image.w);
  }

  void step(const Sweep& sweep, int s, int64_t z) const {
    const Span rows = sweep.rows(s);
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      if (s % 2 == 1) {
        weigh(sweep, s, z, y);
      } else {
        move(sweep, s, z, y);
      }
    }
  }

  // Sums over the region.
  void measure(const Sweep& sweep, int s, int64_t z, int64_t y, double* sums) const {
    sums[0] = sums[1] = 0.0;
    const auto& region = plan.region;
    if (z < region[0][0] || z >= region[0][1] || y < region[1][0] || y >= region[1][1]) return;
    double parts[2][kSumParts] = {};
    const float* row = sweep.row(s, 0, z, y) + region[2][0];
    add_moments(row, region[2][1] - region[2][0], parts);
    sums[0] = sum_of_parts(parts[0]);
    sums[1] = sum_of_parts(parts[1]);
  }
};

void srad_tasks(const void* context, int64_t begin, int64_t end) {
  const SradPlan& plan = *static_cast<const SradPlan*>(context);
  if (plan.flat) return sweep_tasks(plan.pass, SradSweep<2>{plan}, begin, end);
  sweep_tasks(plan.pass, SradSweep<3>{plan}, begin, end);
}

#endif

}  // namespace EK_ISA
}  // namespace ek
