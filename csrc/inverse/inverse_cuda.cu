#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "inverse/inverse_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "inverse/inverse.h"
#include "inverse/inverse_voxel-inl.h"

namespace ek {
namespace cuda {

void invert(const Inverse& args, Stream stream) {
  const InversePlan plan = plan_inverse(args);
  check(cudaMemsetAsync(args.residual, 0, args.flow.n * sizeof(float), stream));
  device::with_inverse_voxel(plan, Launch{stream});
}

}  // namespace cuda
}  // namespace ek
