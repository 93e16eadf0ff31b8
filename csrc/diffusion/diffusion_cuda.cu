#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "diffusion/diffusion_cuda.h"
#include "stencil/stencil_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "diffusion/diffusion_voxel-inl.h"

namespace ek {
namespace cuda {

int64_t diffusion_workspace_bytes(const Diffusion& args) { return device::diffusion_bytes(args); }

void anisotropic_diffusion(const Diffusion& args, void* workspace, Stream stream) {
  device::diffusion_passes(args, static_cast<char*>(workspace), Launch{stream}, TotalOfRows{stream});
}

}  // namespace cuda
}  // namespace ek
