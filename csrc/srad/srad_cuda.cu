#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "srad/srad_cuda.h"
#include "stencil/stencil_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "srad/srad_voxel-inl.h"

namespace ek {
namespace cuda {

int64_t srad_workspace_bytes(const Srad& args) { return device::srad_bytes(args); }

void reduce_speckle(const Srad& args, void* workspace, Stream stream) {
  device::srad_passes(args, static_cast<char*>(workspace), Launch{stream}, TotalOfRows{stream});
}

}  // namespace cuda
}  // namespace ek
