#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "guided/guided_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "guided/guided.h"
#include "guided/guided_voxel-inl.h"

namespace ek {
namespace cuda {

void guided_filter(const Guided& args, Stream stream) {
  ek::check(args);
  each_pass(args, [&](const GuidedPass& pass) { device::with_guided_voxel(pass, Launch{stream}); });
}

}  // namespace cuda
}  // namespace ek
