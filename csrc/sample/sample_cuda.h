// Sampling on a device.
#pragma once

#include "common/cuda.h"
#include "sample/sample_plan.h"

namespace ek {
namespace cuda {

// As ek::sample(), to the bit, for tensors in the memory of the current device; in the order of `stream`.
void sample(const Sample& args, Stream stream);

// exp(velocity), by `steps` compositions with itself of velocity / 2^steps. All are planar float32 fields of
// one shape apart from each other; `spare` is workspace. One kernel per step.
void integrate_velocity(const Tensor& velocity, const Tensor& out, const Tensor& spare, int steps,
                        Boundary boundary, Stream stream);

}  // namespace cuda
}  // namespace ek
