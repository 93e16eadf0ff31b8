// What an inversion is told, as plain data: all that the files of an instruction set may see of it (see
// platform.h).
#pragma once

#include "common/bodies.h"
#include "sample/sample_plan.h"

namespace ek {

struct Inverse {
  Tensor flow;                // [N, dims, D, H, W], planar float32, components (z, y, x) or (y, x)
  Tensor out;                 // like flow
  float* residual = nullptr;  // [N], the largest component of out + flow(p + out)
  int dims = 3;
  Boundary boundary = Boundary::kEdge;
  int iterations = 20;
  float tolerance = 1e-3f;
};

struct InversePlan {
  Inverse args;
  SamplePlan sample;  // of `flow` at the displacements in `out`
};

EK_DECLARE_BODIES(inverse_tasks)

}  // namespace ek
