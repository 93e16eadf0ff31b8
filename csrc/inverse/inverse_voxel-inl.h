// The search for one voxel of an inverse, as a thread of a device does it. Included after
// common/simd_device-inl.h.
#pragma once

#include "inverse/inverse-inl.h"
#include "sample/sample_voxel-inl.h"

namespace ek {
namespace EK_ISA {

template <int kDims>
struct InverseVoxel {
  InversePlan plan;

  EK_MEMBER int64_t rows() const { return plan.sample.rows; }
  EK_MEMBER int64_t items() const { return plan.args.out.w; }
  EK_MEMBER void operator()(uint32_t r, uint32_t x) const {
    Search search;
    search.voxels = plan.args.flow.voxels();
    search_block<kDims>(plan, row_at(plan.args.out, r), x, 1, search);
  }
};

// Calls run(voxel) with the one for the arguments.
template <class Run>
void with_inverse_voxel(const InversePlan& plan, const Run& run) {
  if (plan.args.dims == 3) return run(InverseVoxel<3>{plan});
  run(InverseVoxel<2>{plan});
}

}  // namespace EK_ISA
}  // namespace ek
