// Points and their displacement, compiled once per instruction set. Included after one of
// common/simd_*-inl.h; nothing of the standard library may be used here (see platform.h).
#pragma once

#include "points/points_plan.h"
#include "sample/fetch-inl.h"
#include "sample/locate-inl.h"

namespace ek {
namespace EK_ISA {

template <int kDims>
EK_INLINE void add_samples(const SamplePlan& plan, int64_t first, int count, const float* flow,
                           const Block& block) {
  alignas(64) float moved[kDims][kBlock];
  const int64_t voxels = plan.args.image.voxels();
  for (int c = 0; c < kDims; ++c) {
    each_vector(count, [&](int at, int) __attribute__((always_inline)) {
      store(moved[c] + at, linear_sample<kDims>(plan, flow + c * voxels, block, at));
    });
  }
  const float* points = plan.args.coordinates.as<const float>() + first * kDims;
  float* out = plan.args.out.as<float>() + first * kDims;
  for (int i = 0; i < count; ++i) {
    for (int c = 0; c < kDims; ++c) out[i * kDims + c] = points[i * kDims + c] + moved[c][i];
  }
}

template <int kDims>
EK_INLINE void move_points(const PointsPlan& plan, int64_t task) {
  const SamplePlan& sample = plan.sample;
  const Tensor& image = sample.args.image;
  const int64_t total = sample.args.out.w, n = task / plan.tasks_per_batch;
  const int64_t begin = (task - n * plan.tasks_per_batch) * kPointsPerTask;
  const int64_t end = begin + kPointsPerTask < total ? begin + kPointsPerTask : total;
  const float* flow = image.as<const float>() + n * image.c * image.voxels();
  const Row row{n, 0, 0, 0};
  Block block;
  for (int64_t x = begin; x < end; x += kBlock) {
    const int count = static_cast<int>(end - x < kBlock ? end - x : kBlock);
    locate<kDims, Points<kDims>>(sample, row, x, count, block);
    add_samples<kDims>(sample, n * total + x, count, flow, block);
  }
}

void point_tasks(const void* context, int64_t begin, int64_t end) {
  const PointsPlan& plan = *static_cast<const PointsPlan*>(context);
  for (int64_t task = begin; task < end; ++task) {
    if (plan.sample.args.dims == 3) {
      move_points<3>(plan, task);
    } else {
      move_points<2>(plan, task);
    }
  }
}

}  // namespace EK_ISA
}  // namespace ek
