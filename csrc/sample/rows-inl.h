// The rows and blocks of a task, for every body that samples.
#pragma once

#include "sample/block-inl.h"

namespace ek {
namespace EK_ISA {

// Calls rows(row) for the rows of tasks [begin, end): band by band of the plane, and in each through all
// planes.
template <class Rows>
EK_INLINE void each_row(const SamplePlan& plan, int64_t begin, int64_t end, const Rows& rows) {
  const Tensor& out = plan.args.out;
  begin *= plan.rows_per_task;
  end = end * plan.rows_per_task < plan.rows ? end * plan.rows_per_task : plan.rows;
  const int64_t n = begin / (out.d * out.h), within = begin - n * out.d * out.h;
  int64_t top = within / (plan.band * out.d) * plan.band;
  const auto bottom = [&] { return top + plan.band < out.h ? top + plan.band : out.h; };
  const int64_t inside = within - top * out.d, height = bottom() - top;
  Row row{n, inside / height, top + inside % height, 0};
  for (int64_t r = begin; r < end; ++r) {
    row.first = (row.z * out.h + row.y) * out.w;
    rows(row);
    if (++row.y < bottom()) continue;
    row.y = top;
    if (++row.z < out.d) continue;
    row.z = 0;
    top = bottom() < out.h ? bottom() : 0;
    row.y = top;
    row.n += top == 0;
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
