// Total variation as threads of a device compute it. Included after common/simd_device-inl.h.
#pragma once

#include "stencil/stencil.h"
#include "stencil/stencil_voxel-inl.h"
#include "total_variation/total_variation-inl.h"
#include "total_variation/total_variation.h"

namespace ek {
namespace EK_ISA {

// Fields as on the processor; both kernels work in place.
template <int kDims, bool kPair>
struct TotalVariationVoxel : EachVoxel {
  static constexpr int kResult = kDims, kAhead = kDims + (kPair ? 1 : 0);

  float weight;
  TotalVariationStep step;

  EK_MEMBER void gradient_of(int field, int64_t z, int64_t y, int64_t x, F (&gradient)[kDims]) const {
    const float* u = stencil.field(field);
    const float centre = u[stencil.at(z, y, x)];
    gradient[0] = u[stencil.at(z, y, x + 1 < stencil.image.w ? x + 1 : x)] - centre;
    gradient[1] = u[stencil.at(z + 1 < stencil.image.d ? z + 1 : z, y, x)] - centre;
    if (kDims == 3) gradient[kDims - 1] = u[stencil.at(z, y + 1 < stencil.image.h ? y + 1 : y, x)] - centre;
  }
  EK_MEMBER F inflow_of(int64_t z, int64_t y, int64_t x) const {
    F p[kDims], before[kDims];
    for (int i = 0; i < kDims; ++i) p[i] = stencil.field(i)[stencil.at(z, y, x)];
    before[0] = x > 0 ? stencil.field(0)[stencil.at(z, y, x - 1)] : 0.0f;
    before[1] = z > 0 ? stencil.field(1)[stencil.at(z - 1, y, x)] : 0.0f;
    if (kDims == 3) before[kDims - 1] = y > 0 ? stencil.field(kDims - 1)[stencil.at(z, y - 1, x)] : 0.0f;
    return inflow(p, before);
  }
};

template <int kDims, bool kPair>
struct DualVoxel : TotalVariationVoxel<kDims, kPair> {
  EK_MEMBER void operator()(uint32_t row, uint32_t x) const {
    const uint32_t h = static_cast<uint32_t>(this->stencil.image.h), z = row / h, y = row - z * h;
    const int64_t at = this->stencil.at(z, y, x);
    F gradient[kDims], p[kDims];
    this->gradient_of(this->kAhead, z, y, x, gradient);
    for (int i = 0; i < kDims; ++i) p[i] = this->stencil.field(i)[at];
    step_dual<kDims, kPair>(this->step, this->weight, gradient, p);
    for (int i = 0; i < kDims; ++i) this->stencil.field(i)[at] = p[i];
  }
};

template <int kDims, bool kPair>
struct PrimalVoxel : TotalVariationVoxel<kDims, kPair> {
  EK_MEMBER void operator()(uint32_t row, uint32_t x) const {
    const uint32_t h = static_cast<uint32_t>(this->stencil.image.h), z = row / h, y = row - z * h;
    const int64_t at = this->stencil.at(z, y, x);
    const F v = read_voxel(this->stencil.image, 0, z, y, x, Boundary::kEdge) + this->inflow_of(z, y, x);
    float* to = this->stencil.field(this->kResult) + at;
    if (kPair) {
      const F u = *to, next = u + (v - u) * F(this->step.primal);
      *to = next;
      this->stencil.field(this->kAhead)[at] = next + (next - u) * F(this->step.ahead);
    } else {
      *to = v;
    }
  }
};

template <int kDims, bool kPair>
struct EnergyTerms {
  TotalVariationVoxel<kDims, kPair> of;
  int64_t begin, end;

  EK_MEMBER void operator()(int64_t z, int64_t y, int64_t x, double (&terms)[2]) const {
    const int64_t at = of.stencil.at(z, y, x);
    F gradient[kDims], p[kDims], gap, energy;
    of.gradient_of(of.kResult, z, y, x, gradient);
    for (int i = 0; i < kDims; ++i) p[i] = of.stencil.field(i)[at];
    const F u = of.stencil.field(of.kResult)[at];
    const F image = read_voxel(of.stencil.image, 0, z, y, x, Boundary::kEdge);
    const F v = kPair ? image + of.inflow_of(z, y, x) : u;
    energies(of.weight, image, u, v, gradient, p, gap, energy);
    terms[0] = static_cast<double>(gap);
    terms[1] = static_cast<double>(energy);
  }
};

template <int kDims, bool kPair, class Run, class Total>
float minimise(const TotalVariation& args, const DeviceStencil& stencil, const Run& run, const Total& total) {
  TotalVariationVoxel<kDims, kPair> voxel;
  voxel.stencil = stencil;
  voxel.weight = static_cast<float>(args.weight);
  run(ClearVoxel{{stencil}, kDims});
  run(BeginVoxel{{stencil}, voxel.kResult, voxel.kAhead});
  float gap = 0.0f;
  for (int done = 0;;) {
    for (int left = until_gap(args, done); left > 0; --left) {
      voxel.step = step_of(args, ++done);
      run(DualVoxel<kDims, kPair>{voxel});
      run(PrimalVoxel<kDims, kPair>{voxel});
    }
    const bool last = done == args.iterations - 1;
    if (args.tolerance >= 0.0 || args.gap) {
      sum_rows(stencil, EnergyTerms<kDims, kPair>{voxel, 0, stencil.image.w}, run);
      gap = relative_gap(total(stencil, 0), total(stencil, 1));
    }
    if (last || !(gap > args.tolerance)) break;
  }
  run(FinishVoxel{{stencil}, voxel.kResult});
  return gap;
}

inline int64_t total_variation_bytes(const TotalVariation& args) {
  return device_stencil_bytes(shape_of(args).fields, args.image);
}

// Runs kernels in `memory` of the device. total(stencil, which) adds the sums of all rows, on the host; so
// the gap is written there.
template <class Run, class Total>
void total_variation_passes(const TotalVariation& args, char* memory, const Run& run, const Total& total) {
  const bool pair = args.method == TotalVariationMethod::kPrimalDual;
  for (int64_t channel = 0; channel < args.image.n * args.image.c; ++channel) {
    const DeviceStencil stencil = device_stencil(shape_of(args).fields, stencil_channel(args.image, channel),
                                                 stencil_channel(args.out, channel), memory);
    const bool flat = stencil.image.h == 1;
    const auto solve = flat   ? (pair ? minimise<2, true, Run, Total> : minimise<2, false, Run, Total>)
                       : pair ? minimise<3, true, Run, Total>
                              : minimise<3, false, Run, Total>;
    const float gap = solve(args, stencil, run, total);
    if (args.gap) args.gap[channel] = gap;
  }
}

}  // namespace EK_ISA
}  // namespace ek
