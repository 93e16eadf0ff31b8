// Speckle reduction as threads of a device compute it. Included after common/simd_device-inl.h.
#pragma once

#include "srad/srad-inl.h"
#include "srad/srad.h"
#include "stencil/stencil.h"
#include "stencil/stencil_voxel-inl.h"

namespace ek {
namespace EK_ISA {

// Fields: the image, the next one, and the coefficient of diffusion.
template <int kDims>
struct SradVoxel : EachVoxel {
  int from;
  float half_share, rate;
  SradStep step;

  // Of a field, before and behind a voxel along each axis.
  EK_MEMBER void beside(int field, int64_t z, int64_t y, int64_t x, F (&before)[kDims],
                        F (&next)[kDims]) const {
    const float* values = stencil.field(field);
    const Tensor& image = stencil.image;
    before[0] = values[stencil.at(z, y, x > 0 ? x - 1 : x)];
    next[0] = values[stencil.at(z, y, x + 1 < image.w ? x + 1 : x)];
    before[1] = values[stencil.at(z > 0 ? z - 1 : z, y, x)];
    next[1] = values[stencil.at(z + 1 < image.d ? z + 1 : z, y, x)];
    if (kDims == 3) {
      before[kDims - 1] = values[stencil.at(z, y > 0 ? y - 1 : y, x)];
      next[kDims - 1] = values[stencil.at(z, y + 1 < image.h ? y + 1 : y, x)];
    }
  }
};

template <int kDims>
struct DiffusivityVoxel : SradVoxel<kDims> {
  EK_MEMBER void operator()(uint32_t row, uint32_t x) const {
    const uint32_t h = static_cast<uint32_t>(this->stencil.image.h), z = row / h, y = row - z * h;
    const int64_t at = this->stencil.at(z, y, x);
    F before[kDims], next[kDims];
    this->beside(this->from, z, y, x, before, next);
    this->stencil.field(2)[at] =
        diffusivity(this->step, this->half_share, this->stencil.field(this->from)[at], before, next);
  }
};

template <int kDims>
struct DiffusedVoxel : SradVoxel<kDims> {
  EK_MEMBER void operator()(uint32_t row, uint32_t x) const {
    const uint32_t h = static_cast<uint32_t>(this->stencil.image.h), z = row / h, y = row - z * h;
    const int64_t at = this->stencil.at(z, y, x);
    F before[kDims], next[kDims], none[kDims], there[kDims];
    this->beside(this->from, z, y, x, before, next);
    this->beside(2, z, y, x, none, there);
    this->stencil.field(1 - this->from)[at] = diffused(this->rate, this->stencil.field(this->from)[at],
                                                       this->stencil.field(2)[at], before, next, there);
  }
};

struct RegionTerms {
  DeviceStencil stencil;
  int from;
  int64_t begin, end;
  int64_t z[2], y[2];

  EK_MEMBER void operator()(int64_t at_z, int64_t at_y, int64_t at_x, double (&terms)[2]) const {
    if (at_z < z[0] || at_z >= z[1] || at_y < y[0] || at_y >= y[1]) return;
    const double value = static_cast<double>(stencil.field(from)[stencil.at(at_z, at_y, at_x)]);
    terms[0] = value;
    terms[1] = value * value;
  }
};

template <int kDims, class Run, class Total>
void reduce_channel(const Srad& args, int64_t channel, const DeviceStencil& stencil, const Run& run,
                    const Total& total) {
  const SradPlan plan = plan_srad(args);
  const auto& region = plan.region;
  SradVoxel<kDims> voxel;
  voxel.stencil = stencil;
  voxel.from = 0;
  voxel.half_share = plan.half_share;
  voxel.rate = plan.rate;
  run(BeginVoxel{{stencil}, 0, 0});
  for (int done = 0; done < args.iterations; ++done, voxel.from = 1 - voxel.from) {
    if (args.has_region) {
      sum_rows(stencil,
               RegionTerms{stencil,
                           voxel.from,
                           region[2][0],
                           region[2][1],
                           {region[0][0], region[0][1]},
                           {region[1][0], region[1][1]}},
               run);
      voxel.step = step_of_region(args, total(stencil, 0), total(stencil, 1));
    } else {
      voxel.step = step_of(args, channel, done);
    }
    run(DiffusivityVoxel<kDims>{voxel});
    run(DiffusedVoxel<kDims>{voxel});
  }
  run(FinishVoxel{{stencil}, voxel.from});
}

inline int64_t srad_bytes(const Srad& args) { return device_stencil_bytes(3, args.image); }

// Runs kernels in `memory` of the device. total(stencil, which) adds the sums of all rows, on the host.
template <class Run, class Total>
void srad_passes(const Srad& args, char* memory, const Run& run, const Total& total) {
  for (int64_t channel = 0; channel < args.image.n * args.image.c; ++channel) {
    const DeviceStencil stencil =
        device_stencil(3, stencil_channel(args.image, channel), stencil_channel(args.out, channel), memory);
    (stencil.image.h == 1 ? reduce_channel<2, Run, Total>
                          : reduce_channel<3, Run, Total>)(args, channel, stencil, run, total);
  }
}

}  // namespace EK_ISA
}  // namespace ek
