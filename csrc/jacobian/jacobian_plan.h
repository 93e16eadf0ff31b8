// What a Jacobian determinant is told, as plain data: all that the files of an instruction set may see of it
// (see platform.h).
#pragma once

#include <cstdint>

#include "common/tensor.h"

namespace ek {

struct JacobianDeterminant {
  Tensor flow;  // [N, dims, D, H, W], planar float32 or float16, components (z, y, x) or (y, x)
  Tensor out;   // float32 [N, 1, D, H, W]; without data only the folds are counted
  int64_t* folding = nullptr;  // [N] voxels whose determinant is not positive or not a number; may be null
  int dims = 3;                // 2: a flow with d == 1, in its plane
};

// The work cut into tasks, the same for every number of threads. A task is `rows` rows of each of `planes`
// planes: so few rows that those of one plane are still in the cache when the plane after next asks for them.
struct JacobianPlan {
  JacobianDeterminant args;
  int64_t rows = 1, planes = 1;
  int64_t columns = 1, layers = 1;  // tasks of a sample along y and along z
};

// One body per instruction set; `context` is a JacobianPlan.
namespace scalar {
void jacobian_tasks(const void* context, int64_t begin, int64_t end);
}
namespace avx2 {
void jacobian_tasks(const void* context, int64_t begin, int64_t end);
}
namespace avx512 {
void jacobian_tasks(const void* context, int64_t begin, int64_t end);
}
namespace neon {
void jacobian_tasks(const void* context, int64_t begin, int64_t end);
}

}  // namespace ek
