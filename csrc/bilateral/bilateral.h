// Smooth an image with weights that fall with the distance and with the difference of values: the bilateral
// filter of Tomasi and Manduchi (1998) and, with a guide, the joint one of Petschnigg et al. (2004).
#pragma once

#include "bilateral/bilateral_plan.h"
#include "common/isa.h"
#include "common/parallel.h"

namespace ek {

// Refuses bad arguments (Error).
void check(const Bilateral& args);

// The workspace of a worker, and how many workers can be of use. Refuses bad arguments (Error).
Workers needs(const Bilateral& args);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void bilateral(const Bilateral& args, Isa isa, const Parallel& parallel);

}  // namespace ek
