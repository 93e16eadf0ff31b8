// What filtering along an axis is told, as plain data (see platform.h).
#pragma once

#include "common/bodies.h"
#include "common/tensor.h"

namespace ek {

// The columns of a table are padded to a multiple of this, with index 0 and weight 0: whole vectors of any
// instruction set.
constexpr int64_t kColumns = 16;

// New voxel p of a line is scale[p] * v + sum over k of weight[k][p] * (old[index[k][p]] - v), v being
// old[base[p]]: differences keep a constant exactly. Where a weight is 0 the voxel does not matter.
struct AxisFilter {
  const void* in = nullptr;  // [outer, in_size, inner]
  void* out = nullptr;       // [outer, out_size, inner]
  Type in_type = Type::kFloat32, out_type = Type::kFloat32;
  int64_t outer = 0, inner = 0, in_size = 0, out_size = 0, taps = 0;
  int64_t columns = 0;             // of the tables: out_size, padded
  const int32_t* base = nullptr;   // [columns]
  const float* scale = nullptr;    // [columns]
  const int32_t* index = nullptr;  // [taps, columns]
  const float* weight = nullptr;   // [taps, columns]
};

struct FilterPlan {
  AxisFilter args;
  int64_t tile = 0;   // inner elements of a task, where inner > 1
  int64_t tiles = 1;  // of an outer one
  int64_t lines = 1;  // of a task, where inner == 1
};

EK_DECLARE_BODIES(filter_tasks)  // context is a FilterPlan

}  // namespace ek
