// What filtering along an axis is told, as plain data (see platform.h).
#pragma once

#include "common/bodies.h"
#include "common/tensor.h"
#include "common/workers.h"

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
  int64_t tasks = 0;
};

// Tasks small enough that the lines of all taps stay in the cache.
EK_INLINE FilterPlan cut_filter(const AxisFilter& args) {
  constexpr int64_t kTile = 1024, kVoxelsPerTask = 16384;
  FilterPlan plan;
  plan.args = args;
  plan.tile = args.inner < kTile ? args.inner : kTile;
  plan.tiles = (args.inner + plan.tile - 1) / plan.tile;
  plan.lines = args.out_size < kVoxelsPerTask ? kVoxelsPerTask / args.out_size : 1;
  plan.tasks = args.inner > 1 ? args.outer * plan.tiles : (args.outer + plan.lines - 1) / plan.lines;
  return plan;
}

EK_DECLARE_BODIES(filter_tasks)  // context is a FilterPlan

constexpr int kMaxStages = 3;

// One axis of a chain. The tables are those of an AxisFilter.
struct FilterStage {
  int axis = 0;
  int64_t size = 0;  // new
  int64_t taps = 0, columns = 0;
  const int32_t* base = nullptr;
  const float* scale = nullptr;
  const int32_t* index = nullptr;
  const float* weight = nullptr;
};

// Filters along several axes, one after the other: float32 in between.
struct FilterChain {
  const void* in = nullptr;  // [outer, size 0, size 1, size 2, inner]
  void* out = nullptr;       // the same with the new sizes
  Type in_type = Type::kFloat32, out_type = Type::kFloat32;
  int64_t outer = 0, inner = 1;
  int64_t size[kMaxStages] = {1, 1, 1};
  int stages = 0;  // in the order in which they run; each axis once at most, and axis 0 before all others
  FilterStage stage[kMaxStages];
  Workspace workspace;
};

// A stage as a filter of all images at once, `size` being that of its input: it becomes that of its output.
EK_INLINE AxisFilter stage_filter(const FilterChain& chain, const FilterStage& stage, int64_t* size) {
  AxisFilter filter;
  filter.outer = chain.outer;
  filter.inner = chain.inner;
  for (int axis = 0; axis < stage.axis; ++axis) filter.outer *= size[axis];
  for (int axis = stage.axis + 1; axis < kMaxStages; ++axis) filter.inner *= size[axis];
  filter.in_size = size[stage.axis];
  filter.out_size = size[stage.axis] = stage.size;
  filter.taps = stage.taps;
  filter.columns = stage.columns;
  filter.base = stage.base;
  filter.scale = stage.scale;
  filter.index = stage.index;
  filter.weight = stage.weight;
  return filter;
}

// The chain cut into slabs of a few new planes along axis 0, which go through all stages: what lies between
// stays in the cache.
struct ChainPlan {
  FilterChain args;
  Workers workers;
  int64_t planes = 1;         // of a slab
  int64_t slabs = 1;          // of an outer one
  int64_t new_planes = 1;     // along axis 0
  int64_t new_plane = 1;      // elements
  int64_t space = 0;          // elements of each of the two buffers of a worker
  bool mixes_planes = false;  // whether axis 0 is filtered
  bool widens = false;        // whether lines of single elements are made float32 first
};

EK_DECLARE_BODIES(chain_workers)  // context is a ChainPlan

}  // namespace ek
