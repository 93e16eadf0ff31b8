// Total variation, compiled once per instruction set. Included after one of common/simd_*-inl.h; nothing of
// the standard library may be used here (see platform.h).
//
// The dual field p has a component per axis, between a voxel and the next one; beyond the last voxel it is 0.
// The image that belongs to it is v = image - div p, and the gap between the energies of u and p is a sum of
// terms that are not negative: weight |grad u| + p . grad u + (u - v)^2 / 2.
#pragma once

#include "common/sum-inl.h"
#include "stencil/stencil-inl.h"
#include "total_variation/total_variation_plan.h"

namespace ek {
namespace EK_ISA {

template <int kDims>
EK_INLINE F squares(const F (&of)[kDims]) {
  F sum = of[0] * of[0];
  for (int i = 1; i < kDims; ++i) sum = sum + of[i] * of[i];
  return sum;
}

// The dual field after a step, given the gradient of the image.
template <int kDims, bool kPair>
EK_INLINE void step_dual(const TotalVariationStep& step, float weight, const F (&gradient)[kDims],
                         F (&p)[kDims]) {
  if (kPair) {
    for (int i = 0; i < kDims; ++i) p[i] = p[i] - gradient[i] * F(step.dual);
    const F share = F(1.0f) / max_(F(1.0f), sqrt_(squares(p)) * F(1.0f / weight));
    for (int i = 0; i < kDims; ++i) p[i] = p[i] * share;
  } else {
    const F share = F(1.0f) / (F(1.0f) + sqrt_(squares(gradient)) * F(step.primal));
    for (int i = 0; i < kDims; ++i) p[i] = (p[i] - gradient[i] * F(step.dual)) * share;
  }
}

// -div p, given p and what it is one voxel before along each axis.
template <int kDims>
EK_INLINE F inflow(const F (&p)[kDims], const F (&before)[kDims]) {
  F sum = before[kDims - 1] - p[kDims - 1];
  for (int i = kDims - 2; i >= 0; --i) sum = sum + (before[i] - p[i]);
  return sum;
}

// The terms of a voxel in the gap and in the primal energy.
template <int kDims>
EK_INLINE void energies(float weight, F image, F u, F v, const F (&gradient)[kDims], const F (&p)[kDims],
                        F& gap, F& energy) {
  const F variation = sqrt_(squares(gradient)) * F(weight);
  F dot = p[0] * gradient[0];
  for (int i = 1; i < kDims; ++i) dot = dot + p[i] * gradient[i];
  const F between = u - v, change = u - image;
  gap = (variation + dot) + between * between * F(0.5f);
  energy = variation + change * change * F(0.5f);
}

#if !defined(EK_DEVICE)  // whose threads have a voxel each

// Fields: p along x, planes and rows, u, and where the pair of iterations is, what u is extrapolated to.
template <int kDims, bool kPair>
struct TotalVariationSweep {
  static constexpr int kResult = kDims;
  static constexpr int kAhead = kDims + (kPair ? 1 : 0);  // whose gradient is taken

  const TotalVariationPlan& plan;

  static EK_MEMBER StencilShape shape() {
    StencilShape shape;
    shape.fields = shape.saved = kDims + (kPair ? 2 : 1);
    shape.ring = kPair ? 3 : 2;
    shape.extra = 1;
    shape.rows = 2;
    shape.image = true;
    return shape;
  }

  EK_MEMBER void begin(const Sweep& sweep, int64_t z, int64_t y) const {
    const int64_t w = sweep.pass.image.w;
    for (int i = 0; i < kDims; ++i) {
      for (int64_t x = 0; x < w; x += kLanes) store(sweep.row(0, i, z, y) + x, F(0.0f));
    }
    const float* image = sweep.image(z, y);
    for (int64_t x = 0; x < w; x += kLanes) {
      store(sweep.row(0, kResult, z, y) + x, load(image + x));
      if (kPair) store(sweep.row(0, kAhead, z, y) + x, load(image + x));
    }
  }

  EK_MEMBER void seal_rows(const Sweep& sweep, int s, int64_t z, int64_t y) const {
    sweep.row(s, 0, z, y)[-1] = 0.0f;
    seal(sweep.row(s, kResult, z, y), sweep.pass.image.w);
    if (kPair) seal(sweep.row(s, kAhead, z, y), sweep.pass.image.w);
  }

  // Rows of a field one step ahead along each axis.
  EK_MEMBER void rows_ahead(const Sweep& sweep, int s, int field, int64_t z, int64_t y,
                            const float* (&rows)[3]) const {
    rows[0] = sweep.row(s, field, z, y) + 1;
    rows[1] = sweep.near(s, field, z + 1, y);
    if (kDims == 3) rows[2] = sweep.near(s, field, z, y + 1);
  }

  // Rows of the dual field, and of what it is one step before: nothing, at the border.
  EK_MEMBER void rows_of_dual(const Sweep& sweep, int s, int64_t z, int64_t y, const float* (&p)[kDims],
                              const float* (&before)[kDims]) const {
    for (int i = 0; i < kDims; ++i) p[i] = sweep.row(s, i, z, y);
    before[0] = p[0] - 1;
    before[1] = z > 0 ? sweep.row(s, 1, z - 1, y) : sweep.scratch(0);
    if (kDims == 3) before[2] = y > 0 ? sweep.row(s, 2, z, y - 1) : sweep.scratch(0);
  }

  EK_MEMBER void clear(const Sweep& sweep) const {
    float* zeros = sweep.scratch(0);
    for (int64_t x = 0; x < sweep.pass.image.w; x += kLanes) store(zeros + x, F(0.0f));
  }

  EK_MEMBER void dual(const Sweep& sweep, int s, int64_t z, int64_t y) const {
    const TotalVariationStep step = plan.steps[s - 1];
    const float *u = sweep.row(s - 1, kAhead, z, y), *ahead[3], *from[kDims];
    float* to[kDims];
    rows_ahead(sweep, s - 1, kAhead, z, y, ahead);
    for (int i = 0; i < kDims; ++i) from[i] = sweep.row(s - 1, i, z, y), to[i] = sweep.row(s, i, z, y);
    for (int64_t x = 0; x < sweep.pass.image.w; x += kLanes) {
      F gradient[kDims], p[kDims];
      for (int i = 0; i < kDims; ++i) {
        gradient[i] = load(ahead[i] + x) - load(u + x);
        p[i] = load(from[i] + x);
      }
      step_dual<kDims, kPair>(step, plan.weight, gradient, p);
      for (int i = 0; i < kDims; ++i) store(to[i] + x, p[i]);
    }
    to[0][-1] = 0.0f;
  }

  EK_MEMBER void primal(const Sweep& sweep, int s, int64_t z, int64_t y) const {
    const TotalVariationStep step = plan.steps[s - 1];
    const float *dual[kDims], *before[kDims], *image = sweep.image(z, y);
    rows_of_dual(sweep, s, z, y, dual, before);
    float* to = sweep.row(s, kResult, z, y);
    for (int64_t x = 0; x < sweep.pass.image.w; x += kLanes) {
      F p[kDims], q[kDims];
      for (int i = 0; i < kDims; ++i) p[i] = load(dual[i] + x), q[i] = load(before[i] + x);
      const F v = load(image + x) + inflow(p, q);
      if (kPair) {
        const F u = load(sweep.row(s - 1, kResult, z, y) + x), next = u + (v - u) * F(step.primal);
        store(to + x, next);
        store(sweep.row(s, kAhead, z, y) + x, next + (next - u) * F(step.ahead));
      } else {
        store(to + x, v);
      }
    }
    seal(to, sweep.pass.image.w);
    if (kPair) seal(sweep.row(s, kAhead, z, y), sweep.pass.image.w);
  }

  EK_MEMBER void step(const Sweep& sweep, int s, int64_t z) const {
    clear(sweep);
    const Span rows = sweep.rows(s);
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      dual(sweep, s, z, y);
      primal(sweep, s, z, y);
    }
  }

  EK_MEMBER void measure(const Sweep& sweep, int s, int64_t z, int64_t y, double* sums) const {
    clear(sweep);
    const float *u = sweep.row(s, kResult, z, y), *ahead[3], *dual[kDims], *before[kDims];
    const float* image = sweep.image(z, y);
    rows_ahead(sweep, s, kResult, z, y, ahead);
    rows_of_dual(sweep, s, z, y, dual, before);
    float* terms = sweep.scratch(1);
    for (int which = 0; which < 2; ++which) {
      for (int64_t x = 0; x < sweep.pass.image.w; x += kLanes) {
        F gradient[kDims], p[kDims], q[kDims], gap, energy;
        for (int i = 0; i < kDims; ++i) {
          gradient[i] = load(ahead[i] + x) - load(u + x);
          p[i] = load(dual[i] + x), q[i] = load(before[i] + x);
        }
        const F at = load(u + x), pixel = load(image + x);
        const F v = kPair ? pixel + inflow(p, q) : at;
        energies(plan.weight, pixel, at, v, gradient, p, gap, energy);
        store(terms + x, which == 0 ? gap : energy);
      }
      sums[which] = sum_of(terms, sweep.pass.image.w);
    }
  }
};

template <int kDims>
void total_variation_of(const TotalVariationPlan& plan, int64_t begin, int64_t end) {
  if (plan.method == TotalVariationMethod::kPrimalDual) {
    return sweep_tasks(plan.pass, TotalVariationSweep<kDims, true>{plan}, begin, end);
  }
  sweep_tasks(plan.pass, TotalVariationSweep<kDims, false>{plan}, begin, end);
}

void total_variation_tasks(const void* context, int64_t begin, int64_t end) {
  const TotalVariationPlan& plan = *static_cast<const TotalVariationPlan*>(context);
  if (plan.flat) return total_variation_of<2>(plan, begin, end);
  total_variation_of<3>(plan, begin, end);
}

#endif

}  // namespace EK_ISA
}  // namespace ek
