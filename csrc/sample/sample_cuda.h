// Sampling on a device.
#pragma once

#include "common/cuda.h"
#include "sample/sample_plan.h"

namespace ek {
namespace cuda {

// As ek::sample(), to the bit, for tensors in the memory of the current device; in the order of `stream`.
void sample(const Sample& args, Stream stream);

}  // namespace cuda
}  // namespace ek
