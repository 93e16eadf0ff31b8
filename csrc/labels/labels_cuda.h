// A warp of labels, on a device.
#pragma once

#include "common/cuda.h"
#include "labels/labels_plan.h"

namespace ek {
namespace cuda {

// As ek::warp_labels(), to the bit, for memory of the current device; in the order of `stream`.
void warp_labels(const Labels& args, Stream stream);

}  // namespace cuda
}  // namespace ek
