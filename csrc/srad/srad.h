// Speckle-reducing anisotropic diffusion (Yu and Acton, 2002).
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "srad/srad_plan.h"
#include "stencil/stencil.h"

namespace ek {

// Refuses bad arguments (Error).
void check(const Srad& args);

StencilShape shape_of(const Srad& args);

// The plan of a channel, but for its passes.
SradPlan plan_srad(const Srad& args);

// The constants for a squared coefficient of variation.
SradStep step_of_square(double square);
// Those of iteration `number` of a channel, the first being 0, where they decay.
SradStep step_of(const Srad& args, int64_t channel, int number);
// Those for the sums over the region, of the values and of their squares.
SradStep step_of_region(const Srad& args, double sum, double squares);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void reduce_speckle(const Srad& args, Isa isa, const Parallel& parallel);

}  // namespace ek
