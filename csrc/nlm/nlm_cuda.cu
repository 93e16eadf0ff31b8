#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "nlm/nlm_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "nlm/nlm.h"
#include "nlm/nlm_voxel-inl.h"

namespace ek {
namespace cuda {

void non_local_means(const NonLocalMeans& args, Stream stream) {
  device::with_nlm_voxel(plan_nlm(args), Launch{stream});
}

}  // namespace cuda
}  // namespace ek
