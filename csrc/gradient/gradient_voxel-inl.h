// One voxel of the derivative of a warp by its displacement, as a thread of a device computes it. Included
// after common/simd_device-inl.h.
#pragma once

#include "gradient/gradient-inl.h"
#include "sample/sample_voxel-inl.h"

namespace ek {
namespace EK_ISA {

template <int kDims, int kOrder>
struct GradientVoxel {
  GradientPlan plan;

  EK_MEMBER int64_t rows() const { return plan.sample.rows; }
  EK_MEMBER int64_t items() const { return plan.args.out.w; }
  EK_MEMBER void operator()(uint32_t r, uint32_t x) const {
    const Row row = row_at(plan.args.out, r);
    if constexpr (kOrder == 0) {
      nearest_gradient_block<kDims>(plan, row, x, 1);
    } else {
      Block block;
      locate_voxel<kDims, kOrder>(plan.sample, row, Displacement<float, kDims>(plan.sample, row, x), block);
      gradient_block<kDims, kOrder>(plan, row, x, 1, block);
    }
  }
};

template <int kDims, class Run>
void gradient_order(const GradientPlan& plan, const Run& run) {
  if (plan.args.order == 0) return run(GradientVoxel<kDims, 0>{plan});
  if (plan.args.order == 1) return run(GradientVoxel<kDims, 1>{plan});
  run(GradientVoxel<kDims, 3>{plan});
}

// Calls run(voxel) with the one for the arguments.
template <class Run>
void with_gradient_voxel(const GradientPlan& plan, const Run& run) {
  if (plan.args.dims == 3) return gradient_order<3>(plan, run);
  gradient_order<2>(plan, run);
}

}  // namespace EK_ISA
}  // namespace ek
