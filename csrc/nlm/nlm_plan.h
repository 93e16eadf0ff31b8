// What non-local means is told, as plain data: all that the files of an instruction set may see of it (see
// platform.h).
#pragma once

#include "common/bodies.h"
#include "common/boundary.h"
#include "common/tensor.h"
#include "common/workers.h"

namespace ek {

constexpr int kMaxPatchRadius = 4, kMaxSearchRadius = 16;

// Every channel of every sample is filtered by itself. With u the image, extended beyond its ends, and
//   w(p, q) = exp(-max(0, D(p, q) - bias) / h^2), h = strength * sigma,
// where D is the mean of the squared differences between the patches around p and q:
//   out(p) = u(p) + sum over q near p of w(p, q) * (u(q) - u(p)) / sum over q of w(p, q).
// The voxel itself is a neighbour of weight 1. Sums are of float32 and in a fixed order.
struct NonLocalMeans {
  Tensor image, out;  // planar, of one type and shape
  // float32 [N or 1, C or 1, 1, 1, 1], or with the grid of the image
  Tensor sigma;
  Tensor mask;   // uint8 [N or 1, C or 1, D, H, W], 0 where nothing is filtered; without data that is nowhere
  int dims = 3;  // 2: an image with d == 1, in its plane
  int patch_radius = 1, search_radius = 5;
  float strength = 1.0f;
  // The weights are of blocks of the size of a patch, whose centres are patch_radius + 1 voxels apart, and
  // the results of the blocks that hold a voxel are averaged.
  bool blockwise = false;
  // Filters u^2, subtracts 2 sigma^2, and takes the root of what is not negative.
  bool rician = false;
  // Greater than 0: Pearson's distance, (u(p) - u(q))^2 / max(u(q), floor), in the place of squared
  // differences, without bias. Blockwise only.
  float floor = 0.0f;
  Boundary boundary = Boundary::kMirror;
  Workspace workspace;
};

// Where in the memory of a worker each of its arrays begins, in floats.
struct PointwiseLayout {
  int64_t pitch = 0;   // of all rows: those of a tile, what is around them, and space to overrun
  int64_t origin = 0;  // where in a row its first voxel of a tile is: aligned for every instruction set
  int64_t image = 0, squares = 0, scales = 0;
  int64_t differences = 0, weights = 0;  // the sums over q
  int64_t squared = 0, lines = 0, planes = 0, pairs = 0;
  int64_t end = 0;
};

// The same where weights are of blocks, whose rows are in phases.
struct BlockwiseLayout {
  int64_t pitch = 0, origin = 0;  // of a phase of a row, and where in it block 0 of a tile is
  int64_t image = 0, squares = 0, inverses = 0, scales = 0;
  int64_t differences = 0, squared = 0, lines = 0, planes = 0;  // of one offset
  int64_t weights = 0, current = 0, sums = 0;
  int64_t end = 0;
};

// The work cut into tiles, the same for every number of threads.
struct NlmPlan {
  NonLocalMeans args;
  int64_t d = 1, h = 1, w = 1;  // voxels of a tile
  int64_t tiles_z = 1, tiles_y = 1, tiles_x = 1;
  float scale = 0.0f, bias = 0.0f;  // see weight_scale() in nlm_math-inl.h
  PointwiseLayout pointwise;
  BlockwiseLayout blockwise;
  Workers workers;
};

EK_DECLARE_BODIES(nlm_workers)  // context is a NlmPlan, a task is a worker

}  // namespace ek
