// Runs kernels as a device does, but on the processor: what a thread computes is compiled by the host's
// compiler, and all threads run one after the other.
#pragma once

#include "adjoint/adjoint_plan.h"
#include "bilateral/bilateral_plan.h"
#include "diffusion/diffusion_plan.h"
#include "filter/filter_plan.h"
#include "gaussian/gaussian_plan.h"
#include "gradient/gradient_plan.h"
#include "guided/guided_plan.h"
#include "inverse/inverse_plan.h"
#include "jacobian/jacobian_plan.h"
#include "labels/labels_plan.h"
#include "median/median_plan.h"
#include "nlm/nlm_plan.h"
#include "points/points.h"
#include "sample/sample_plan.h"
#include "srad/srad_plan.h"
#include "total_variation/total_variation_plan.h"

namespace test {

void as_device(const ek::Sample& args);
void as_device(const ek::JacobianDeterminant& args);
void as_device(const ek::Gradient& args);
void as_device(const ek::Labels& args);
void as_device(const ek::Median& args);
void as_device(const ek::Inverse& args);
void as_device(const ek::Adjoint& args, bool forwards);
void as_device(const ek::AxisFilter& args);
void as_device(const ek::MovePoints& args);
void as_device(const ek::NonLocalMeans& args);
void as_device(const ek::TotalVariation& args);
void as_device(const ek::Diffusion& args);
void as_device(const ek::Srad& args);
void as_device(const ek::Bilateral& args);
void as_device(const ek::Gaussian& args);
void as_device(const ek::Guided& args);

// Calls each(row, item) for all threads of a kernel, the last or the first of them first.
template <class Voxel, class Each>
void every_thread(const Voxel& voxel, const Each& each, bool forwards = false) {
  const int64_t rows = voxel.rows(), items = voxel.items();
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t i = 0; i < items; ++i) {
      each(static_cast<uint32_t>(forwards ? r : rows - 1 - r),
           static_cast<uint32_t>(forwards ? i : items - 1 - i));
    }
  }
}

}  // namespace test
