// The adjoint of a warp, on a device.
#pragma once

#include "adjoint/adjoint_plan.h"
#include "common/cuda.h"

namespace ek {
namespace cuda {

// Bytes of workspace: 8.25 for each element of the results, and 4 for each channel. Refuses bad arguments.
int64_t adjoint_workspace_bytes(const Adjoint& args);

// As ek::warp_adjoint(), but summed more exactly, for memory of the current device; in the order of `stream`.
// The result does not depend on the order in which threads run. `workspace` lies at a multiple of 8;
// `reaches` is not needed.
void warp_adjoint(const Adjoint& args, void* workspace, Stream stream);

}  // namespace cuda
}  // namespace ek
