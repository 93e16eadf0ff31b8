// Inversion of a displacement, on a device.
#pragma once

#include "common/cuda.h"
#include "inverse/inverse_plan.h"

namespace ek {
namespace cuda {

// As ek::invert(), to the bit, for memory of the current device; in the order of `stream`.
void invert(const Inverse& args, Stream stream);

}  // namespace cuda
}  // namespace ek
