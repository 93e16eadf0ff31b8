// Anisotropic diffusion as threads of a device compute it. Included after common/simd_device-inl.h.
//
// Every thread computes what flows through all faces of its voxel.
#pragma once

#include "diffusion/diffusion.h"
#include "diffusion/diffusion_math-inl.h"
#include "stencil/stencil.h"
#include "stencil/stencil_voxel-inl.h"

namespace ek {
namespace EK_ISA {

struct VoxelsAround {
  const DeviceStencil& stencil;
  const float* image;
  int64_t z, y, x;

  static EK_MEMBER int64_t inside(int64_t at, int64_t size) { return at < 0 ? 0 : at < size ? at : size - 1; }
  EK_MEMBER float operator()(int dz, int dy, int dx) const {
    return image[stencil.at(inside(z + dz, stencil.image.d), inside(y + dy, stencil.image.h),
                            inside(x + dx, stencil.image.w))];
  }
};

template <DiffusionForm kForm, bool kFlat>
struct DiffusionVoxel : EachVoxel {
  int from;  // the field; the other one is written
  DiffusionStep step;

  EK_MEMBER void operator()(uint32_t row, uint32_t x) const {
    const int64_t z = row / static_cast<uint32_t>(stencil.image.h), y = row - z * stencil.image.h;
    const VoxelsAround at = {stencil, stencil.field(from), z, y, x};
    const F next = x + 1 < stencil.image.w ? flux_x<kForm, kFlat>(step, at, 0) : 0.0f;
    F inflow = next - (x > 0 ? flux_x<kForm, kFlat>(step, at, -1) : 0.0f);
    if (!kFlat) {
      const F above = y + 1 < stencil.image.h ? flux_y<kForm, kFlat>(step, at, 0) : 0.0f;
      inflow = inflow + (above - (y > 0 ? flux_y<kForm, kFlat>(step, at, -1) : 0.0f));
    }
    const F back = z + 1 < stencil.image.d ? flux_z<kForm, kFlat>(step, at, 0) : 0.0f;
    inflow = inflow + (back - (z > 0 ? flux_z<kForm, kFlat>(step, at, -1) : 0.0f));
    stencil.field(1 - from)[stencil.at(z, y, x)] = diffused<kForm, kFlat>(step, at, inflow);
  }
};

template <bool kFlat>
struct GradientTerms {
  DeviceStencil stencil;
  int from;
  int64_t begin, end;

  EK_MEMBER void operator()(int64_t z, int64_t y, int64_t x, double (&terms)[2]) const {
    const VoxelsAround at = {stencil, stencil.field(from), z, y, x};
    terms[0] = static_cast<double>(squared_gradient<kFlat>(at));
  }
};

template <DiffusionForm kForm, bool kFlat, class Run, class Total>
void diffuse_channel(const Diffusion& args, const DeviceStencil& stencil, const Run& run,
                     const Total& total) {
  DiffusionVoxel<kForm, kFlat> voxel;
  voxel.stencil = stencil;
  voxel.from = 0;
  run(BeginVoxel{{stencil}, 0, 0});
  for (int done = 0; done < args.iterations; ++done, voxel.from = 1 - voxel.from) {
    if (done % args.interval == 0) {
      sum_rows(stencil, GradientTerms<kFlat>{stencil, voxel.from, 0, stencil.image.w}, run);
      voxel.step = step_of(args, total(stencil, 0));
    }
    run(voxel);
  }
  run(FinishVoxel{{stencil}, voxel.from});
}

inline int64_t diffusion_bytes(const Diffusion& args) { return device_stencil_bytes(2, args.image); }

// Runs kernels in `memory` of the device. total(stencil, which) adds the sums of all rows, on the host.
template <class Run, class Total>
void diffusion_passes(const Diffusion& args, char* memory, const Run& run, const Total& total) {
  constexpr DiffusionForm kGradient = DiffusionForm::kGradient, kCurvature = DiffusionForm::kCurvature;
  for (int64_t channel = 0; channel < args.image.n * args.image.c; ++channel) {
    const DeviceStencil stencil =
        device_stencil(2, stencil_channel(args.image, channel), stencil_channel(args.out, channel), memory);
    const bool gradient = args.form == kGradient;
    if (stencil.image.h == 1) {
      (gradient ? diffuse_channel<kGradient, true, Run, Total>
                : diffuse_channel<kCurvature, true, Run, Total>)(args, stencil, run, total);
    } else {
      (gradient ? diffuse_channel<kGradient, false, Run, Total>
                : diffuse_channel<kCurvature, false, Run, Total>)(args, stencil, run, total);
    }
  }
}

}  // namespace EK_ISA
}  // namespace ek
