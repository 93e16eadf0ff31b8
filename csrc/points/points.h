// Move points through a displacement field: out = point + flow[point].
#pragma once

#include "common/boundary.h"
#include "common/isa.h"
#include "common/parallel.h"
#include "common/tensor.h"

namespace ek {

struct MovePoints {
  Tensor points;  // float32 [N, P, dims], components (z, y, x) or (y, x): a channels-last tensor with w == P
  Tensor flow;    // float32 [N, dims, D, H, W]
  Tensor out;     // like points
  int dims = 3;
  Boundary boundary = Boundary::kEdge;
};

struct PointsPlan;

// Refuses bad arguments (Error) and says what every way to run needs.
PointsPlan plan_points(const MovePoints& args);

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void move_points(const MovePoints& args, Isa isa, const Parallel& parallel);

}  // namespace ek
