// The adjoint of a warp in its image: adds values[p] to the voxels that a warp would sample for p.
#pragma once

#include "adjoint/adjoint_plan.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace ek {

// How many elements Adjoint::reaches must have.
int64_t adjoint_reaches(const Tensor& values);

// Refuses bad arguments (Error) and says what every way to run needs.
AdjointPlan plan_adjoint(const Adjoint& args);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`: each voxel
// of the output belongs to one task and receives its parts in the order of the voxels they come from.
void warp_adjoint(const Adjoint& args, Isa isa, const Parallel& parallel);

}  // namespace ek
