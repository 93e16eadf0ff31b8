// The operators that deform.
#pragma once

#include <vector>

#include "hosts/arrays.h"
#include "hosts/operators.h"
#include "jacobian/jacobian_plan.h"
#include "sample/sample_plan.h"

namespace ek {
namespace hosts {

std::vector<Operator> registration_operators();

// What the kernels are told, for those who run them elsewhere than on the processor.
Sample warp_arguments(const Call& call);
// out = scale * (first + second at the places that scale * first leads to), all float32
Sample compose_arguments(const Array& first, const Array& second, const Array& out, float scale,
                         Boundary boundary);
// `grid` is the call's, in float32.
Sample grid_sample_arguments(const Call& call, const Array& grid);
// `out` is [N, D, H, W] or [N, H, W], float32.
JacobianDeterminant determinant_arguments(const Array& flow, const Array& out);

}  // namespace hosts
}  // namespace ek
