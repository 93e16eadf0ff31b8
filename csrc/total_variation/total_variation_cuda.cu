#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "stencil/stencil_cuda.h"
#include "total_variation/total_variation_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "total_variation/total_variation_voxel-inl.h"

namespace ek {
namespace cuda {

int64_t total_variation_workspace_bytes(const TotalVariation& args) {
  return device::total_variation_bytes(args);
}

void total_variation(const TotalVariation& args, void* workspace, Stream stream) {
  device::total_variation_passes(args, static_cast<char*>(workspace), Launch{stream}, TotalOfRows{stream});
}

}  // namespace cuda
}  // namespace ek
