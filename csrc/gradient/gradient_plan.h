// What the derivative of a warp by its displacement is told, as plain data: all that the files of an
// instruction set may see of it (see platform.h).
#pragma once

#include "common/bodies.h"
#include "sample/sample_plan.h"

namespace ek {

struct Gradient {
  Tensor cotangent;  // [N, C, D, H, W], planar float32
  Tensor image;      // like cotangent
  Tensor flow;       // [N, dims, D, H, W], planar float32, components (z, y, x) or (y, x)
  Tensor out;        // like flow
  int dims = 3;
  int order = 1;
  Boundary boundary = Boundary::kEdge;
};

struct GradientPlan {
  Gradient args;
  SamplePlan sample;  // of the image, as for a warp
};

EK_DECLARE_BODIES(gradient_tasks)

}  // namespace ek
