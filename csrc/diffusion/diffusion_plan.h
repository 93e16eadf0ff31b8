// What anisotropic diffusion is told, as plain data: all that the files of an instruction set may see of it
// (see platform.h).
#pragma once

#include "common/bodies.h"
#include "stencil/stencil_plan.h"

namespace ek {

enum class DiffusionForm : uint8_t { kGradient, kCurvature };

struct Diffusion {
  Tensor image, out;  // planar, of one shape and type
  int dims = 3;
  DiffusionForm form = DiffusionForm::kGradient;
  int iterations = 5;
  double time_step = 0.0625;
  double conductance = 1.0;
  int interval = 1;      // iterations between two looks at the mean of the squared gradient
  StencilMemory memory;  // on the processor
};

// The constants of a pass.
struct DiffusionStep {
  float time_step = 0.0f;
  float inverse_k = 0.0f;  // log2(e) / (-2 conductance^2 mean)
};

struct DiffusionPlan {
  StencilPass pass;
  DiffusionForm form = DiffusionForm::kGradient;
  bool flat = false;  // 2-D
  DiffusionStep step;
};

EK_DECLARE_BODIES(diffusion_tasks)  // context is a DiffusionPlan

}  // namespace ek
