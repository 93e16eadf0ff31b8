// The derivative of a warp by its displacement, on a device.
#pragma once

#include "common/cuda.h"
#include "gradient/gradient_plan.h"

namespace ek {
namespace cuda {

// As ek::warp_gradient(), to the bit, for memory of the current device; in the order of `stream`.
void warp_gradient(const Gradient& args, Stream stream);

}  // namespace cuda
}  // namespace ek
