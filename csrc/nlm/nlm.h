// Non-local means: every voxel becomes the average of those whose surroundings look like its own.
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "nlm/nlm_plan.h"

namespace ek {

// Refuses bad arguments (Error).
void check(const NonLocalMeans& args);

// Refuses bad arguments (Error).
NlmPlan plan_nlm(const NonLocalMeans& args);

// What each worker of the workspace needs; refuses bad arguments (Error).
int64_t nlm_workspace_bytes(const NonLocalMeans& args);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`, nor on the
// number of workers.
void non_local_means(const NonLocalMeans& args, Isa isa, const Parallel& parallel);

}  // namespace ek
