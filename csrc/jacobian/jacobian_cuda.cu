#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "jacobian/jacobian_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "jacobian/jacobian.h"
#include "jacobian/jacobian_voxel-inl.h"

namespace ek {
namespace cuda {

void jacobian_determinant(const JacobianDeterminant& args, Stream stream) {
  ek::check(args);
  if (args.folding) check(cudaMemsetAsync(args.folding, 0, args.flow.n * sizeof(int64_t), stream));
  device::with_jacobian_voxel(args, [&](const auto& voxel) {
    if (args.folding) {
      Launch{stream}.count(voxel, args.folding);
    } else {
      Launch{stream}(voxel);
    }
  });
}

}  // namespace cuda
}  // namespace ek
