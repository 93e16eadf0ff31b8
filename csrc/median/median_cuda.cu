#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "median/median.h"
#include "median/median_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "median/median_voxel-inl.h"

namespace ek {
namespace cuda {

void median(const Median& args, Stream stream) {
  ek::check(args);
  device::with_median_voxel(args, Launch{stream});
}

}  // namespace cuda
}  // namespace ek
