// Pull an image through a displacement field: out[p] = image[p + flow[p]], p in voxels.
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "warp/warp_plan.h"

namespace ek {

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void warp(const Warp& args, Isa isa, const Parallel& parallel);

}  // namespace ek
