#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "gradient/gradient_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "gradient/gradient.h"
#include "gradient/gradient_voxel-inl.h"

namespace ek {
namespace cuda {

void warp_gradient(const Gradient& args, Stream stream) {
  device::with_gradient_voxel(plan_gradient(args), Launch{stream});
}

}  // namespace cuda
}  // namespace ek
