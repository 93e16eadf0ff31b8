// How a displacement field changes volume: det(I + dflow/dp) at every voxel p, and where it folds.
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "jacobian/jacobian_plan.h"

namespace ek {

// Refuses bad arguments (Error).
void check(const JacobianDeterminant& args);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void jacobian_determinant(const JacobianDeterminant& args, Isa isa, const Parallel& parallel);

}  // namespace ek
