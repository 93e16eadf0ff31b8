// What a bilateral filter is told, as plain data (see platform.h).
#pragma once

#include "common/bodies.h"
#include "common/boundary.h"
#include "common/tensor.h"
#include "common/workers.h"

namespace ek {

// Every voxel p becomes image[p] + the mean of image[p + o] - image[p] over the offsets o of a window, which
// is symmetric: a table holds one of each pair o, -o, the one that comes later in memory. A voxel's weight in
// the mean is the offset's, times 2^(decay * (guide[p + o] - guide[p])^2); that of p itself is 1.
//
// The weight of a pair of voxels is the same for both, and is computed once. The order of a voxel's sums is
// that in which rows meet it: first -o for the offsets to other rows, then o for those, then o and -o for
// each one within the row. The table begins with the farthest rows.
struct Bilateral {
  Tensor image, out;                 // planar, of one shape and type
  Tensor guide;                      // on the image's grid, of its channels or of one; without data the image
  const int32_t* offsets = nullptr;  // [pairs, 3] in the order (z, y, x), rows descending
  const float* weights = nullptr;    // [pairs]
  int64_t pairs = 0;
  int64_t reach[3] = {};  // the largest offset along each axis
  float decay = 0.0f;     // -log2(e) / (2 sigma^2)
  Boundary boundary = Boundary::kMirror;
  Workspace workspace;  // as needs() says
};

// The work cut into tasks: blocks of voxels, which are read with what surrounds them.
struct BilateralPlan {
  Bilateral args;
  Workers workers;
  int64_t block[3] = {}, blocks[3] = {};  // (z, y, x)
  int64_t pitch = 0, sums_pitch = 0;      // elements from row to row of what is read, and of the sums
  int64_t margin = 0;                     // elements before the first voxel of what is read
  int64_t box_bytes = 0, sums_bytes = 0, row_bytes = 0;
};

EK_DECLARE_BODIES(bilateral_workers)  // context is a BilateralPlan

}  // namespace ek
