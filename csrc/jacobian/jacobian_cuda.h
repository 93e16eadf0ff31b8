// The Jacobian determinant on a device.
#pragma once

#include "common/cuda.h"
#include "jacobian/jacobian_plan.h"

namespace ek {
namespace cuda {

// As ek::jacobian_determinant(), to the bit, for memory of the current device; in the order of `stream`.
void jacobian_determinant(const JacobianDeterminant& args, Stream stream);

}  // namespace cuda
}  // namespace ek
