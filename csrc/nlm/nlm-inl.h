// Non-local means, compiled once per instruction set. Included after one of common/simd_*-inl.h; nothing of
// the standard library may be used here (see platform.h).
#pragma once

#include "nlm/blockwise-inl.h"
#include "nlm/pointwise-inl.h"

namespace ek {
namespace EK_ISA {

void nlm_workers(const void* context, int64_t begin, int64_t end) {
  const NlmPlan& plan = *static_cast<const NlmPlan*>(context);
  take_tasks(plan.workers, begin, end, [&](int64_t task, char* memory) {
    const Tile tile = tile_of(plan, task);
    float* floats = reinterpret_cast<float*>(memory);
    if (!wanted(plan, tile)) return copy_tile(plan, tile, floats);
    if (plan.args.blockwise) return blockwise_tile(plan, tile, floats);
    pointwise_tile(plan, tile, floats);
  });
}

}  // namespace EK_ISA
}  // namespace ek
