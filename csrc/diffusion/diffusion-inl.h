// Anisotropic diffusion, compiled once per instruction set. Included after one of common/simd_*-inl.h;
// nothing of the standard library may be used here (see platform.h).
//
// What flows through a face is computed once, and leaves one voxel for the other.
#pragma once

#include "common/sum-inl.h"
#include "diffusion/diffusion_math-inl.h"
#include "stencil/stencil-inl.h"

namespace ek {
namespace EK_ISA {

// Rows of the image around one, by planes and rows.
struct RowsAround {
  const float* rows[3][3];
  int64_t x = 0;

  EK_MEMBER F operator()(int dz, int dy, int dx) const { return load(rows[dz + 1][dy + 1] + x + dx); }
};

template <bool kFlat>
EK_INLINE RowsAround rows_around(const Sweep& sweep, int s, int64_t z, int64_t y) {
  RowsAround around;
  for (int dz = -1; dz <= 1; ++dz) {
    for (int dy = -1; dy <= 1; ++dy) {
      around.rows[dz + 1][dy + 1] = sweep.near(s, 0, z + dz, kFlat ? y : y + dy);
    }
  }
  return around;
}

template <DiffusionForm kForm, bool kFlat>
struct DiffusionSweep {
  static constexpr int kResult = 0;

  const DiffusionPlan& plan;

  static EK_MEMBER StencilShape shape() {
    StencilShape shape;
    shape.spare = 1;
    shape.rows = 4;
    return shape;
  }

  EK_MEMBER void begin(const Sweep&, int64_t, int64_t) const {}
  EK_MEMBER void seal_rows(const Sweep& sweep, int s, int64_t z, int64_t y) const {
    seal(sweep.row(s, 0, z, y), sweep.pass.image.w);
  }

  EK_MEMBER void clear(float* row, int64_t w) const {
    for (int64_t x = 0; x < w; x += kLanes) store(row + x, F(0.0f));
  }

  // What flows through the faces below a plane.
  void enter(const Sweep& sweep, int s, int64_t z) const {
    const Span rows = sweep.rows(s);
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      float* to = sweep.spare(s, 0, y);
      if (z == 0) {
        clear(to, sweep.pass.image.w);
        continue;
      }
      RowsAround at = rows_around<kFlat>(sweep, s - 1, z, y);
      for (at.x = 0; at.x < sweep.pass.image.w; at.x += kLanes) {
        store(to + at.x, flux_z<kForm, kFlat>(plan.step, at, -1));
      }
    }
  }

  // What flows through the faces of a row towards the next one along each axis.
  EK_MEMBER void fluxes(const Sweep& sweep, RowsAround at, int64_t z, int64_t y, float* to_x, float* to_y,
                        float* to_z) const {
    const int64_t w = sweep.pass.image.w;
    const bool last_z = z + 1 == sweep.pass.image.d, last_y = y + 1 == sweep.pass.image.h;
    for (at.x = 0; at.x < w; at.x += kLanes) {
      store(to_x + at.x, flux_x<kForm, kFlat>(plan.step, at, 0));
      if (!kFlat && !last_y) store(to_y + at.x, flux_y<kForm, kFlat>(plan.step, at, 0));
      if (!last_z) store(to_z + at.x, flux_z<kForm, kFlat>(plan.step, at, 0));
    }
    to_x[-1] = to_x[w - 1] = 0.0f;
    if (!kFlat && last_y) clear(to_y, w);
    if (last_z) clear(to_z, w);
  }

  void step(const Sweep& sweep, int s, int64_t z) const {
    if (z == sweep.planes(s).begin) enter(sweep, s, z);
    const Span rows = sweep.rows(s);
    const int64_t w = sweep.pass.image.w;
    float *in_x = sweep.scratch(0), *in_z = sweep.scratch(1);
    for (int64_t y = rows.begin; y < rows.end; ++y) {
      RowsAround at = rows_around<kFlat>(sweep, s - 1, z, y);
      float *below = sweep.scratch(2 + (y & 1)), *above = sweep.scratch(3 - (y & 1));
      if (!kFlat && y == 0) clear(below, w);
      if (!kFlat && y > 0 && y == rows.begin) {
        for (at.x = 0; at.x < w; at.x += kLanes) {
          store(below + at.x, flux_y<kForm, kFlat>(plan.step, at, -1));
        }
      }
      fluxes(sweep, at, z, y, in_x, above, in_z);
      float *to = sweep.row(s, 0, z, y), *front = sweep.spare(s, 0, y);
      for (at.x = 0; at.x < w; at.x += kLanes) {
        F inflow = load(in_x + at.x) - load(in_x + at.x - 1);
        if (!kFlat) inflow = inflow + (load(above + at.x) - load(below + at.x));
        const F back = load(in_z + at.x);
        inflow = inflow + (back - load(front + at.x));
        store(front + at.x, back);
        store(to + at.x, diffused<kForm, kFlat>(plan.step, at, inflow));
      }
      seal(to, w);
    }
  }

  void measure(const Sweep& sweep, int s, int64_t z, int64_t y, double* sums) const {
    RowsAround at = rows_around<kFlat>(sweep, s, z, y);
    float* terms = sweep.scratch(0);
    for (at.x = 0; at.x < sweep.pass.image.w; at.x += kLanes) {
      store(terms + at.x, squared_gradient<kFlat>(at));
    }
    sums[0] = sum_of(terms, sweep.pass.image.w);
    sums[1] = 0.0;
  }
};

template <DiffusionForm kForm>
void diffusion_of(const DiffusionPlan& plan, int64_t begin, int64_t end) {
  if (plan.flat) return sweep_tasks(plan.pass, DiffusionSweep<kForm, true>{plan}, begin, end);
  sweep_tasks(plan.pass, DiffusionSweep<kForm, false>{plan}, begin, end);
}

void diffusion_tasks(const void* context, int64_t begin, int64_t end) {
  const DiffusionPlan& plan = *static_cast<const DiffusionPlan*>(context);
  if (plan.form == DiffusionForm::kGradient) return diffusion_of<DiffusionForm::kGradient>(plan, begin, end);
  diffusion_of<DiffusionForm::kCurvature>(plan, begin, end);
}

}  // namespace EK_ISA
}  // namespace ek
