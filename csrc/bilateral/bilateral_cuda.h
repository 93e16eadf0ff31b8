// The bilateral filter on a device.
#pragma once

#include "bilateral/bilateral_plan.h"
#include "common/cuda.h"

namespace ek {
namespace cuda {

// As ek::bilateral(), to the bit, for memory of the current device; in the order of `stream`. The caller has
// checked the arguments (ek::check) while the table was in memory that the processor can read.
void bilateral(const Bilateral& args, Stream stream);

}  // namespace cuda
}  // namespace ek
