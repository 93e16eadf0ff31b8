// Kernels on a GPU for arrays of the host: their inputs are copied there and their results back. Arrays that
// are on a GPU already are used where they are. All take what the kernels of the processor take, and return
// when the results are there.
#pragma once

#include <string>

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

namespace ek {
namespace gpu {

// Why no GPU can be used; empty if one can.
std::string missing();

// Each throws Error for bad arguments or without a GPU, and cuda::CudaError if the device fails.
void filter_axes(const FilterChain& args);
void anisotropic_diffusion(const Diffusion& args);
void bilateral(const Bilateral& args);
void filter_axis(const AxisFilter& args);
void gaussian(const Gaussian& args);
void guided_filter(const Guided& args);
// exp(velocity) in `steps` compositions, without a copy between them: planar float32 fields of one shape.
void integrate_velocity(const Tensor& velocity, const Tensor& out, int steps, Boundary boundary);
void invert(const Inverse& args);
void jacobian_determinant(const JacobianDeterminant& args);
void median(const Median& args);
void move_points(const MovePoints& args);
void non_local_means(const NonLocalMeans& args);
void reduce_speckle(const Srad& args);
void sample(const Sample& args);
void total_variation(const TotalVariation& args);
void warp_adjoint(const Adjoint& args);
void warp_gradient(const Gradient& args);
void warp_labels(const Labels& args);

}  // namespace gpu
}  // namespace ek
