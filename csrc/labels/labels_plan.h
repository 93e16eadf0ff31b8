// What a warp of labels is told, as plain data: all that the files of an instruction set may see of it (see
// platform.h).
#pragma once

#include "common/bodies.h"
#include "sample/sample_plan.h"

namespace ek {

struct Labels {
  Tensor labels;  // [N, C, D, H, W], planar integers
  Tensor flow;    // [N, dims, D, H, W], planar float32, components (z, y, x) or (y, x)
  Tensor out;     // like labels
  int dims = 3;
  bool is_signed = false;  // whether a label with its highest bit set is less than 0
  bool linear = false;     // the label of the largest linear weight, else that of the nearest voxel
  Boundary boundary = Boundary::kEdge;
};

struct LabelsPlan {
  Labels args;
  SamplePlan sample;
};

EK_DECLARE_BODIES(labels_tasks)

}  // namespace ek
