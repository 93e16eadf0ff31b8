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

// Refuses bad arguments (Error) and says what every way to run needs: of each worker `workers.bytes`.
ChainPlan plan_chain(const FilterChain& args);

// As filter_axis() for one stage after the other, to the bit.
void filter_axes(const FilterChain& args, Isa isa, const Parallel& parallel);

}  // namespace ek
