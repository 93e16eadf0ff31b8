// The Gaussian filter on a device.
#pragma once

#include "common/cuda.h"
#include "gaussian/gaussian_plan.h"

namespace ek {
namespace cuda {

// As ek::gaussian(), to the bit, for memory of the current device; in the order of `stream`.
void gaussian(const Gaussian& args, Stream stream);

}  // namespace cuda
}  // namespace ek
