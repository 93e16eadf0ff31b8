// Sampling an image on a grid: out[:, p] = image at the coordinates of p.
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "sample/sample_plan.h"

namespace ek {

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void sample(const Sample& args, Isa isa, const Parallel& parallel);

// Refuses bad arguments (Error) and cuts the work into tasks: for all that goes through the same blocks.
SamplePlan plan_sample(const Sample& args);

// Fills the axes of a plan from its image and boundary.
void set_axes(SamplePlan& plan);

// How many tasks a plan has.
int64_t tasks_of(const SamplePlan& plan);

}  // namespace ek
