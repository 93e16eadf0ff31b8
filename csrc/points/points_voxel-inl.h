// One point and its displacement, as a thread of a device computes it. Included after
// common/simd_device-inl.h.
#pragma once

#include "points/points-inl.h"
#include "sample/sample_voxel-inl.h"

namespace ek {
namespace EK_ISA {

// A row is kPointsPerRow points of one sample.
constexpr int kPointsPerRow = 32;

template <int kDims>
struct PointVoxel {
  SamplePlan plan;

  EK_MEMBER uint32_t rows_per_sample() const {
    return (static_cast<uint32_t>(plan.args.out.w) + (kPointsPerRow - 1)) / kPointsPerRow;
  }
  EK_MEMBER int64_t rows() const { return plan.args.out.n * rows_per_sample(); }
  EK_MEMBER int64_t items() const { return kPointsPerRow; }
  EK_MEMBER void operator()(uint32_t r, uint32_t item) const {
    const Tensor& flow = plan.args.image;
    const uint32_t n = r / rows_per_sample();
    const int64_t x = int64_t{r - n * rows_per_sample()} * kPointsPerRow + item;
    if (x >= plan.args.out.w) return;
    const Row row{n, 0, 0, 0};
    Block block;
    locate_voxel<kDims, 1>(plan, row, Points<kDims>(plan, row, x), block);
    add_samples<kDims>(plan, n * plan.args.out.w + x, 1, flow.as<const float>() + n * flow.c * flow.voxels(),
                       block);
  }
};

// Calls run(voxel) with the one for the arguments.
template <class Run>
void with_point_voxel(const SamplePlan& plan, const Run& run) {
  if (plan.args.dims == 3) return run(PointVoxel<3>{plan});
  run(PointVoxel<2>{plan});
}

}  // namespace EK_ISA
}  // namespace ek
