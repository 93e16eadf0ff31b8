// Sum weighted voxels along one axis: smoothing and separable resampling.
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "filter/filter_plan.h"

namespace ek {

// Refuses bad arguments (Error).
void check(const AxisFilter& args);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void filter_axis(const AxisFilter& args, Isa isa, const Parallel& parallel);

}  // namespace ek
