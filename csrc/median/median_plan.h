// What a median filter is told, as plain data (see platform.h).
#pragma once

#include "common/bodies.h"
#include "common/boundary.h"
#include "common/tensor.h"
#include "common/workers.h"

namespace ek {

constexpr int kMaxMedianRadius = 3;

struct Median {
  Tensor image, out;  // planar, of one type and shape
  int dims = 3;       // 2: images with d == 1, whose window is flat
  int radius = 1;     // the window has 2 * radius + 1 voxels along each axis
  Boundary boundary = Boundary::kMirror;
  Workspace workspace;  // of as many bytes for each worker as plan_median() says
};

// Columns that a task works on at once, at most: some vectors of any instruction set. A task's rows are as
// many more voxels wide as a vector may read beside them.
constexpr int64_t kMedianColumns = 272, kMedianPitch = kMedianColumns + 16;

// A task is some rows of one plane, as wide as columns of a window with its radius on both sides allow.
struct MedianPlan {
  Median args;
  Workers workers;
  int64_t rows = 1, width = 1;       // of a task
  int64_t strips = 1, segments = 1;  // tasks of a plane along y and along x
};

EK_DECLARE_BODIES(median_workers)  // context is a MedianPlan, a number is that of a worker

}  // namespace ek
