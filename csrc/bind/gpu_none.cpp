// What stands for csrc/bind/gpu.cu in a build without CUDA.
#if !defined(EK_CUDA)
#include "bind/gpu.h"
#include "common/error.h"

namespace ek {
namespace gpu {

std::string missing() { return "this build has no CUDA: EDGEKIT_CUDA=1 pip install builds it where nvcc is"; }

void filter_axes(const FilterChain&) { throw Error(missing()); }
void anisotropic_diffusion(const Diffusion&) { throw Error(missing()); }
void bilateral(const Bilateral&) { throw Error(missing()); }
void filter_axis(const AxisFilter&) { throw Error(missing()); }
void gaussian(const Gaussian&) { throw Error(missing()); }
void guided_filter(const Guided&) { throw Error(missing()); }
void integrate_velocity(const Tensor&, const Tensor&, int, Boundary) { throw Error(missing()); }
void invert(const Inverse&) { throw Error(missing()); }
void jacobian_determinant(const JacobianDeterminant&) { throw Error(missing()); }
void median(const Median&) { throw Error(missing()); }
void move_points(const MovePoints&) { throw Error(missing()); }
void non_local_means(const NonLocalMeans&) { throw Error(missing()); }
void reduce_speckle(const Srad&) { throw Error(missing()); }
void sample(const Sample&) { throw Error(missing()); }
void total_variation(const TotalVariation&) { throw Error(missing()); }
void warp_adjoint(const Adjoint&) { throw Error(missing()); }
void warp_gradient(const Gradient&) { throw Error(missing()); }
void warp_labels(const Labels&) { throw Error(missing()); }

}  // namespace gpu
}  // namespace ek
#endif
