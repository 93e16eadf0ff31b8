// The median filter on a device.
#pragma once

#include "common/cuda.h"
#include "median/median_plan.h"

namespace ek {
namespace cuda {

// As ek::median(), to the bit, for memory of the current device and without a workspace; in the order of
// `stream`.
void median(const Median& args, Stream stream);

}  // namespace cuda
}  // namespace ek
