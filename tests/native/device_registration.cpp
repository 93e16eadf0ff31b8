#include "common/simd_device-inl.h"
// The vocabulary above decides what the bodies below are compiled for.
#include <vector>

#include "adjoint/adjoint.h"
#include "adjoint/adjoint_voxel-inl.h"
#include "device.h"
#include "filter/filter.h"
#include "filter/filter_voxel-inl.h"
#include "gradient/gradient.h"
#include "gradient/gradient_voxel-inl.h"
#include "inverse/inverse.h"
#include "inverse/inverse_voxel-inl.h"
#include "labels/labels.h"
#include "labels/labels_voxel-inl.h"
#include "points/points_voxel-inl.h"

namespace test {

void as_device(const ek::Gradient& args) {
  ek::device::with_gradient_voxel(ek::plan_gradient(args),
                                  [](const auto& voxel) { every_thread(voxel, voxel); });
}

void as_device(const ek::Labels& args) {
  ek::device::with_labels_voxel(ek::plan_labels(args), [](const auto& voxel) { every_thread(voxel, voxel); });
}

void as_device(const ek::Inverse& args) {
  const ek::InversePlan plan = ek::plan_inverse(args);
  for (int64_t n = 0; n < args.flow.n; ++n) args.residual[n] = 0.0f;
  ek::device::with_inverse_voxel(plan, [](const auto& voxel) { every_thread(voxel, voxel); });
}

void as_device(const ek::Adjoint& args, bool forwards) {
  const ek::AdjointPlan plan = ek::plan_adjoint(args);
  const auto run = [&](const auto& voxel) { every_thread(voxel, voxel, forwards); };
  std::vector<int64_t> space(static_cast<size_t>(ek::device::adjoint_passes(plan, nullptr, run) / 8));
  ek::device::adjoint_passes(plan, reinterpret_cast<char*>(space.data()), run);
}

void as_device(const ek::AxisFilter& args) {
  ek::check(args);
  ek::device::with_filter_voxel(args, [](const auto& voxel) { every_thread(voxel, voxel); });
}

void as_device(const ek::MovePoints& args) {
  ek::device::with_point_voxel(ek::plan_points(args).sample,
                               [](const auto& voxel) { every_thread(voxel, voxel); });
}

}  // namespace test
