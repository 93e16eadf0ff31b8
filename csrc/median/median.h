// The median of the voxels around each voxel.
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "median/median_plan.h"

namespace ek {

// Refuses bad arguments (Error); the workspace may still be missing.
void check(const Median& args);

// The work, cut into tasks, and what each worker needs for it. Refuses bad arguments (Error).
MedianPlan plan_median(const Median& args);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void median(const Median& args, Isa isa, const Parallel& parallel);

}  // namespace ek
