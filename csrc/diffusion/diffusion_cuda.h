// Anisotropic diffusion, on a device.
#pragma once

#include "common/cuda.h"
#include "diffusion/diffusion_plan.h"

namespace ek {
namespace cuda {

// Bytes of the memory that a call works in.
int64_t diffusion_workspace_bytes(const Diffusion& args);

// As on the processor, to the bit, for an image and a result on the current device; in the order of `stream`,
// which is waited for where sums decide what comes next. Everything else that `args` points to is the host's.
void anisotropic_diffusion(const Diffusion& args, void* workspace, Stream stream);

}  // namespace cuda
}  // namespace ek
