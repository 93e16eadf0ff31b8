#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "labels/labels_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "labels/labels.h"
#include "labels/labels_voxel-inl.h"

namespace ek {
namespace cuda {

void warp_labels(const Labels& args, Stream stream) {
  device::with_labels_voxel(plan_labels(args), Launch{stream});
}

}  // namespace cuda
}  // namespace ek
