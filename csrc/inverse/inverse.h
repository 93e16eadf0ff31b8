// Invert a displacement field: out[p] <- -flow(p + out[p]), again and again, for each voxel on its own.
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "inverse/inverse_plan.h"

namespace ek {

// Refuses bad arguments (Error) and says what every way to run needs.
InversePlan plan_inverse(const Inverse& args);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void invert(const Inverse& args, Isa isa, const Parallel& parallel);

}  // namespace ek
