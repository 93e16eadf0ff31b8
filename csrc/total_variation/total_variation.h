// Total variation: the image that is close to another and has short contours (Rudin, Osher and Fatemi, 1992).
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "stencil/stencil.h"
#include "total_variation/total_variation_plan.h"

namespace ek {

// How often the gap is looked at, in iterations.
constexpr int kGapInterval = 10;

// Refuses bad arguments (Error).
void check(const TotalVariation& args);

StencilShape shape_of(const TotalVariation& args);

// The constants of iteration `number`, which makes image `number` of the image before; the first one is 1.
TotalVariationStep step_of(const TotalVariation& args, int number);

// How far to go from image `done` without looking at the gap; none of them when it is the last one.
int until_gap(const TotalVariation& args, int done);

// The relative gap, of the sums of an image.
float relative_gap(double gap, double energy);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void total_variation(const TotalVariation& args, Isa isa, const Parallel& parallel);

}  // namespace ek
