// What a Gaussian filter is told, as plain data (see platform.h).
#pragma once

#include "common/bodies.h"
#include "common/boundary.h"
#include "common/tensor.h"
#include "common/workers.h"

namespace ek {

// Along one axis after the other, x first, voxel v becomes v + the sum over k of
// weights[k - 1] * ((v[-k] + v[k]) - 2 v): differences keep a constant exactly, and leave the weight of v
// itself to be what is missing to 1. All between the axes is float32.
struct Gaussian {
  Tensor image, out;             // planar, of one shape and type
  Tensor spares[2];              // float32 of that shape, as many as spares() says
  const float* weights[3] = {};  // [reach], along (z, y, x)
  int64_t reach[3] = {};         // 0 where there is nothing to do
  Boundary boundary = Boundary::kMirror;
  Workspace workspace;  // as needs() says
};

// One axis of it.
struct AxisPass {
  Tensor in, out;  // `in` is float32 but along x
  int axis = 2;    // of (z, y, x)
  const float* weights = nullptr;
  int64_t reach = 0;
  Boundary boundary = Boundary::kMirror;
};

// Its tasks: some rows, or some columns of some new rows.
struct AxisPlan {
  AxisPass args;
  Workers workers;
  int64_t outer = 1, size = 1, inner = 1;  // the image as [outer, size, inner], `size` along the axis
  int64_t rows = 1, columns = 1;           // of a task; along x rows of the image
  int64_t row_tasks = 1, column_tasks = 1;
};

EK_DECLARE_BODIES(gaussian_workers)  // context is an AxisPlan

}  // namespace ek
