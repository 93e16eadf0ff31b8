#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "points/points_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "points/points_voxel-inl.h"

namespace ek {
namespace cuda {

void move_points(const MovePoints& args, Stream stream) {
  device::with_point_voxel(plan_points(args).sample, Launch{stream});
}

}  // namespace cuda
}  // namespace ek
