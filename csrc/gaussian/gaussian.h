// Smooth an image by a Gaussian, or by any symmetric kernel whose axes are separate.
#pragma once

#include "common/isa.h"
#include "common/parallel.h"
#include "gaussian/gaussian_plan.h"

namespace ek {

// How many arrays of the image's shape are needed besides.
int spares(const Gaussian& args);

// The workspace of a worker, and how many workers can be of use. Refuses bad arguments (Error), but for
// spares that have no data yet.
Workers needs(const Gaussian& args);

// Refuses bad arguments (Error).
void check(const Gaussian& args);

// Calls run(pass) for all axes in their order.
template <class Run>
void each_pass(const Gaussian& args, const Run& run) {
  int left = 1;
  for (int axis = 0; axis < 2; ++axis) left += args.reach[axis] > 0;
  AxisPass pass;
  pass.in = args.image;
  pass.boundary = args.boundary;
  for (int axis = 2; axis >= 0; --axis) {
    if (axis < 2 && args.reach[axis] == 0) continue;
    --left;
    const Tensor& far = args.out.type == Type::kFloat32 ? args.out : args.spares[1];
    pass.out = left == 0 ? args.out : left == 1 ? args.spares[0] : far;
    pass.axis = axis;
    pass.weights = args.weights[axis];
    pass.reach = args.reach[axis];
    run(pass);
    pass.in = pass.out;
  }
}

// Refuses bad arguments (Error), then runs. The result depends neither on `isa` nor on `parallel`.
void gaussian(const Gaussian& args, Isa isa, const Parallel& parallel);

}  // namespace ek
