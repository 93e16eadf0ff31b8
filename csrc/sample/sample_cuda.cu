#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "sample/sample_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "sample/sample.h"
#include "sample/sample_voxel-inl.h"

namespace ek {
namespace cuda {

void sample(const Sample& args, Stream stream) {
  device::with_sample_voxel(plan_sample(args), Launch{stream});
}

}  // namespace cuda
}  // namespace ek
