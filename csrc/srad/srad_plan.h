// What speckle reduction is told, as plain data: all that the files of an instruction set may see of it (see
// platform.h).
#pragma once

#include "common/bodies.h"
#include "stencil/stencil_plan.h"

namespace ek {

struct Srad {
  Tensor image, out;  // planar, of one shape and type
  int dims = 3;
  int iterations = 20;
  double time_step = 0.5;
  // The coefficient of variation of speckle: what it is of a channel at first [N, C], and how it decays per
  // time; or, in every iteration, that of a box [begin, end) of axes (z, y, x).
  const double* start = nullptr;
  double decay = 0.0;
  bool has_region = false;
  int64_t region[3][2] = {};
  StencilMemory memory;  // on the processor
};

// The constants of one iteration.
struct SradStep {
  float square = 0.0f;   // of the coefficient of variation q
  float inverse = 0.0f;  // 1 / (q^2 (1 + q^2))
};

constexpr int kMostSradSteps = 16;  // of a pass

struct SradPlan {
  StencilPass pass;
  bool flat = false;          // 2-D
  float half_share = 0.25f;   // 1 / (2 dims)
  float rate = 0.0f;          // time step / (2 dims)
  int64_t region[3][2] = {};  // of planes, rows and columns
  SradStep steps[kMostSradSteps];
};

EK_DECLARE_BODIES(srad_tasks)  // context is a SradPlan

}  // namespace ek
