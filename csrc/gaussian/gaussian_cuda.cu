#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "gaussian/gaussian_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "gaussian/gaussian.h"
#include "gaussian/gaussian_voxel-inl.h"

namespace ek {
namespace cuda {

void gaussian(const Gaussian& args, Stream stream) {
  ek::check(args);
  each_pass(args, [&](const AxisPass& pass) { Launch{stream}(device::GaussianVoxel{pass}); });
}

}  // namespace cuda
}  // namespace ek
