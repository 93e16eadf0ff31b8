// What total variation is told, as plain data: all that the files of an instruction set may see of it (see
// platform.h).
#pragma once

#include "common/bodies.h"
#include "stencil/stencil_plan.h"

namespace ek {

// Which way to the image u that minimises weight * TV(u) + |u - image|^2 / 2.
enum class TotalVariationMethod : uint8_t { kChambolle, kPrimalDual };

struct TotalVariation {
  Tensor image, out;     // planar, of one shape and type
  float* gap = nullptr;  // [N, C], if wanted: (primal - dual energy) / primal energy of what is returned
  int dims = 3;
  TotalVariationMethod method = TotalVariationMethod::kChambolle;
  double weight = 1.0;
  int iterations = 100;     // images that are computed; the first is the given one
  double tolerance = -1.0;  // of the gap, where iterations end early; below 0 they do not
  StencilMemory memory;     // on the processor
};

// The constants of one iteration.
struct TotalVariationStep {
  float dual = 0.0f, primal = 0.0f, ahead = 0.0f;
};

constexpr int kMostSteps = 16;  // of a pass

struct TotalVariationPlan {
  StencilPass pass;
  TotalVariationMethod method = TotalVariationMethod::kChambolle;
  bool flat = false;  // 2-D
  float weight = 1.0f;
  TotalVariationStep steps[kMostSteps];
};

EK_DECLARE_BODIES(total_variation_tasks)  // context is a TotalVariationPlan

}  // namespace ek
