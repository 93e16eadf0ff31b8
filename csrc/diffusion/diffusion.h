// Anisotropic diffusion (Perona and Malik, 1990), as ITK defines it.
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "diffusion/diffusion_plan.h"
#include "stencil/stencil.h"

namespace ek {

// Refuses bad arguments (Error).
void check(const Diffusion& args);

StencilShape shape_of(const Diffusion& args);

// The constants that follow from the sum of squared central differences, which are not halved.
DiffusionStep step_of(const Diffusion& args, double sum);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void diffuse(const Diffusion& args, Isa isa, const Parallel& parallel);

}  // namespace ek
