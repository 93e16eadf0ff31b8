// Iterations in which every voxel becomes a function of its neighbours: how they sweep through an image, as
// plain data (see platform.h).
//
// A pass runs several iterations. A task of it owns a box of the image, and follows a wave of planes: as soon
// as a plane has been through one iteration, its predecessor goes through the next one, so that all there is
// of them stays in the cache (Nguyen et al., 3.5-D blocking, 2010). What surrounds the box is computed by
// every task that needs it: the cut changes no bit of the result.
#pragma once

#include "common/tensor.h"
#include "common/workers.h"

namespace ek {

// Before and behind each row of the working memory, in elements: a vector of any instruction set.
constexpr int64_t kRowPad = 16;

// What an operator keeps of each voxel.
struct StencilShape {
  int fields = 1;      // float32 each
  int saved = 1;       // of them, between passes
  int ring = 3;        // planes of a stage that the next stage looks at
  int spare = 0;       // planes of a stage that belong to it alone
  int extra = 0;       // neighbours that the last stage of a pass looks at
  int rows = 0;        // of scratch
  int stages = 1;      // of an iteration
  bool image = false;  // whether every stage looks at the image
};

// What a caller provides, of sizes that stencil.h tells.
struct StencilMemory {
  void* state = nullptr;  // at a multiple of 64
  Workspace workspace;
};

// Planes are the slices of a volume, or the rows of an image.
struct StencilPass {
  Tensor image, out;            // planar, of one channel; d planes of h rows
  const float* from = nullptr;  // [saved, d, h, w]; none: begin with the image
  float* to = nullptr;          // likewise, if wanted
  bool finish = false;          // whether the result goes to `out`
  double* sums = nullptr;       // [d * h, 2] of what has been reached, if wanted
  int stages = 0;               // iterations, in stages
  int halo = 0;
  int64_t planes = 0, rows = 0;   // that a task owns
  int64_t slabs = 0, strips = 0;  // tasks along planes and rows
  int64_t height = 0, pitch = 0;  // of a plane in the working memory
  Workers workers;
};

}  // namespace ek
