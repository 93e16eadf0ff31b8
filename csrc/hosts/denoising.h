// The operators that take noise away.
#pragma once

#include <cstdint>
#include <vector>

#include "bilateral/bilateral_plan.h"
#include "hosts/operators.h"
#include "nlm/nlm_plan.h"

namespace ek {
namespace hosts {

std::vector<Operator> denoising_operators();

// What the kernels are told, save for workspace, for those who run them elsewhere than on the processor.
// `sigma` is where the kernel reads it.
NonLocalMeans nlm_arguments(const Call& call, float* sigma);

// One offset of each pair o, -o in a disc or ball, the farthest rows first, and their weights.
struct Window {
  std::vector<int32_t> offsets;  // [pairs, 3] in the order (z, y, x)
  std::vector<float> weights;    // [pairs]
};

// That of a Bilateral of these values.
Window bilateral_window(int dims, const Value* values);
Bilateral bilateral_arguments(const Call& call, const Window& window);

}  // namespace hosts
}  // namespace ek
