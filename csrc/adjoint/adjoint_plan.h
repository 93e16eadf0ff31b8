// What the adjoint of a warp is told, as plain data: all that the files of an instruction set may see of it
// (see platform.h).
#pragma once

#include "common/bodies.h"
#include "sample/sample_plan.h"

namespace ek {

// The planes of the output that a block of values reaches; none if first > last.
struct Reach {
  int32_t first, last;
};

struct Adjoint {
  Tensor values;             // [N, C, D, H, W], planar float32
  Tensor flow;               // [N, dims, D, H, W], planar float32, components (z, y, x) or (y, x)
  Tensor out;                // like values
  Tensor counts;             // [N, 1, D, H, W], the adjoint of ones; without data it is not wanted
  Reach* reaches = nullptr;  // workspace, as many as adjoint_reaches() says
  int dims = 3;
  int order = 1;
  Boundary boundary = Boundary::kEdge;
};

// Every task owns a slab: some planes of the output of one sample, along the first axis of more than one
// voxel (z or y). It visits all blocks that reach it in the order of their voxels.
struct AdjointPlan {
  Adjoint args;
  SamplePlan sample;   // of `out`, as for a warp
  int axis = 0;        // of SamplePlan::axis, along which slabs are cut
  int64_t planes = 1;  // of a slab
  int64_t slabs = 1;   // of a sample
  int64_t blocks = 1;  // of a row
};

EK_DECLARE_BODIES(reach_tasks)    // fills `reaches`; tasks are those of `sample`
EK_DECLARE_BODIES(adjoint_tasks)  // then fills `out` and `counts`; tasks are slabs

}  // namespace ek
