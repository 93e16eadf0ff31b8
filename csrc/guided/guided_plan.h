// What a guided filter is told, as plain data (see platform.h).
#pragma once

#include "common/bodies.h"
#include "common/boundary.h"
#include "common/tensor.h"
#include "common/workers.h"

namespace ek {

// Arrays that are handed from axis to axis: of a guide's mean and variance, and of the image's mean and the
// covariance. Where the image is its own guide there are but the first two.
constexpr int kMostMoments = 4;

// out = mean(a) * guide + mean(b) with a = covariance / (variance + epsilon), b = mean(image) - a *
// mean(guide), all means being those of a box.
struct Guided {
  Tensor image, out;       // planar, of one shape and type
  Tensor guide;            // on the image's grid, of its channels or of one; without data it is the image
  float* spare = nullptr;  // floats() of them
  int64_t reach[3] = {};   // of the box, along (z, y, x); 0 where there is no such axis
  float epsilon = 0.0f;
  Boundary boundary = Boundary::kMirror;
  Workspace workspace;  // as needs() says
};

// One axis of the moments, or of the means of a and b.
//
// The variance of a box is the mean of the variances of its lines and the variance of their means: nothing is
// subtracted that is much larger than the result, whatever is added to an image. Along an axis moments are
// those of differences from the middle voxel.
struct GuidedPass {
  Tensor image, guide, out;  // `guide` is the image where there is none
  const float* in[kMostMoments] = {};
  float* to[kMostMoments] = {};
  bool guided = false;
  bool first = false;  // reads the images
  bool means = false;  // of a and b, in place of moments
  bool last = false;   // makes a and b of the moments, or the result of their means
  int axis = 2;
  int64_t reach = 0;
  float share = 0.0f;  // 1 / (2 * reach + 1)
  float epsilon = 0.0f;
  Boundary boundary = Boundary::kMirror;

  EK_HD int inputs() const { return guided && !means ? 4 : 2; }
};

struct GuidedPlan {
  GuidedPass args;
  Workers workers;
  int64_t outer = 1, size = 1, inner = 1;  // the image as [outer, size, inner], `size` along the axis
  int64_t rows = 1, columns = 1;           // of a task; along x rows of the image
  int64_t row_tasks = 1, column_tasks = 1;
  int64_t pointer_bytes = 0, row_bytes = 0;  // of a worker's memory
};

EK_DECLARE_BODIES(guided_workers)  // context is a GuidedPlan

}  // namespace ek
