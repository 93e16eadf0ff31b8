// Filtering along an axis on a device.
#pragma once

#include "common/cuda.h"
#include "filter/filter_plan.h"

namespace ek {
namespace cuda {

// As ek::filter_axis(), to the bit, for memory of the current device; in the order of `stream`. The caller
// has checked the arguments (ek::check) while the tables were in memory that the processor can read.
void filter_axis(const AxisFilter& args, Stream stream);

}  // namespace cuda
}  // namespace ek
