#include "common/error.h"
#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "filter/filter_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "filter/filter_voxel-inl.h"

namespace ek {
namespace cuda {

void filter_axis(const AxisFilter& args, Stream stream) {
  require(args.outer * args.out_size <= kMaxElements, "out has more than 2^31 - 1 elements");
  device::with_filter_voxel(args, Launch{stream});
}

}  // namespace cuda
}  // namespace ek
