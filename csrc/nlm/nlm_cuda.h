// Non-local means on a device.
#pragma once

#include "common/cuda.h"
#include "nlm/nlm_plan.h"

namespace ek {
namespace cuda {

// As ek::non_local_means(), to the bit, for memory of the current device; in the order of `stream`. Needs no
// workspace.
void non_local_means(const NonLocalMeans& args, Stream stream);

}  // namespace cuda
}  // namespace ek
