// The rows and blocks of a task, for every body that samples.
#pragma once

#include "sample/block-inl.h"

namespace ek {
namespace EK_ISA {

// Calls rows(row) for the rows of tasks [begin, end).
template <class Rows>
EK_INLINE void each_row(const SamplePlan& plan, int64_t begin, int64_t end, const Rows& rows) {
  const Tensor& out = plan.args.out;
  begin *= plan.rows_per_task;
  end = end * plan.rows_per_task < plan.rows ? end * plan.rows_per_task : plan.rows;
  for (int64_t r = begin; r < end; ++r) {
    const int64_t n = r / (out.d * out.h), within = r - n * out.d * out.h, z = within / out.h;
    rows(Row{n, z, within - z * out.h, within * out.w});
  }
}

// Calls blocks(row, x, count) for the blocks of these rows.
template <class Blocks>
EK_INLINE void each_block(const SamplePlan& plan, int64_t begin, int64_t end, const Blocks& blocks) {
  const int64_t width = plan.args.out.w;
  each_row(plan, begin, end, [&](const Row& row) {
    for (int64_t x = 0; x < width; x += kBlock) {
      blocks(row, x, static_cast<int>(width - x < kBlock ? width - x : kBlock));
    }
  });
}

}  // namespace EK_ISA
}  // namespace ek
