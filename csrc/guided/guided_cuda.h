// The guided filter on a device.
#pragma once

#include "common/cuda.h"
#include "guided/guided_plan.h"

namespace ek {
namespace cuda {

// As ek::guided_filter(), to the bit, for memory of the current device; in the order of `stream`.
void guided_filter(const Guided& args, Stream stream);

}  // namespace cuda
}  // namespace ek
