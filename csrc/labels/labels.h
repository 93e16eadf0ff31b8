// Pull a label map through a displacement field.
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "labels/labels_plan.h"

namespace ek {

// Refuses bad arguments (Error) and says what every way to run needs.
LabelsPlan plan_labels(const Labels& args);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void warp_labels(const Labels& args, Isa isa, const Parallel& parallel);

}  // namespace ek
