// Moving points on a device.
#pragma once

#include "common/cuda.h"
#include "points/points.h"

namespace ek {
namespace cuda {

// As ek::move_points(), to the bit, for memory of the current device; in the order of `stream`.
void move_points(const MovePoints& args, Stream stream);

}  // namespace cuda
}  // namespace ek
