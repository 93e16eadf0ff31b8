// The derivative of sum(cotangent * warp(image, flow)) by the flow.
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "gradient/gradient_plan.h"

namespace ek {

// Refuses bad arguments (Error) and says what every way to run needs.
GradientPlan plan_gradient(const Gradient& args);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void warp_gradient(const Gradient& args, Isa isa, const Parallel& parallel);

}  // namespace ek
