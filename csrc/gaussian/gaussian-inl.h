// A Gaussian along one axis, compiled once per instruction set. Included after one of common/simd_*-inl.h;
// nothing of the standard library may be used here (see platform.h).
#pragma once

#include "common/box-inl.h"
#include "gaussian/gaussian_plan.h"

namespace ek {
namespace EK_ISA {

// Vectors that are worked on at once: weights are read rarely, and sums do not wait for each other.
constexpr int kGroup = 4;

// kCount vectors; at(k) is where the voxels k steps on are. Of the last vector only some lanes may be there.
template <int kCount, class At>
EK_INLINE void smooth(const AxisPass& args, const At& at, float* to, int lanes) {
  const auto read = [&](const float* from, int i) __attribute__((always_inline)) {
    return kCount > 1 ? load(from + i * kLanes) : load_some(from, lanes);
  };
  const float* weights = args.weights;
  const int64_t reach = args.reach;
  F sum[kCount], twice[kCount];
  for (int i = 0; i < kCount; ++i) {
    sum[i] = read(at(0), i);
    twice[i] = sum[i] + sum[i];
  }
  for (int64_t k = 1; k <= reach; ++k) {
    const float *before = at(-k), *after = at(k);
    const F weight(weights[k - 1]);
    for (int i = 0; i < kCount; ++i) {
      sum[i] = sum[i] + ((read(before, i) + read(after, i)) - twice[i]) * weight;
    }
  }
  for (int i = 0; i < kCount; ++i) store(to + i * kLanes, sum[i]);
}

// The same for a row, of which `to` has room for whole vectors.
template <class AtOf>
EK_INLINE void smooth_row(const AxisPass& args, int64_t count, const AtOf& at_of, float* to) {
  int64_t x = 0;
  for (; x + kGroup * kLanes <= count; x += kGroup * kLanes) smooth<kGroup>(args, at_of(x), to + x, kLanes);
  for (; x < count; x += kLanes) {
    smooth<1>(args, at_of(x), to + x, count - x < kLanes ? static_cast<int>(count - x) : kLanes);
  }
}

// Rows [first, end) of the image, along x.
EK_INLINE void along_rows(const AxisPlan& plan, int64_t task, char* memory) {
  const AxisPass& args = plan.args;
  const Tensor& image = args.in;
  const int64_t begin = task * plan.rows, w = image.w, reach = args.reach;
  const int64_t end = begin + plan.rows < plan.outer ? begin + plan.rows : plan.outer;
  float* row = reinterpret_cast<float*>(memory);
  float* to = row + w + 2 * reach + kLanes;
  for (int64_t r = begin; r < end; ++r) {
    const Box box{r / image.h % image.d, r % image.h, -reach, 1, 1, w + 2 * reach};
    read_box(image, r / image.h / image.d, box, args.boundary, row, w + 2 * reach);
    const float* middle = row + reach;
    smooth_row(
        args, w,
        [=](int64_t x) __attribute__((always_inline)) {
          return [=](int64_t k) __attribute__((always_inline)) { return middle + x + k; };
        },
        to);
    write_row(args.out, r * w, to, w);
  }
}

// Some columns of some rows, or of planes: neighbours in memory at a time.
EK_INLINE void across_rows(const AxisPlan& plan, int64_t task, char* memory) {
  const AxisPass& args = plan.args;
  const auto part = [](int64_t at, int64_t size, int64_t most)
                        __attribute__((always_inline)) { return size - at < most ? size - at : most; };
  const int64_t x = task % plan.column_tasks * plan.columns, columns = part(x, plan.inner, plan.columns);
  const int64_t group = task / plan.column_tasks, begin = group % plan.row_tasks * plan.rows;
  const int64_t first = group / plan.row_tasks * plan.size, end = begin + part(begin, plan.size, plan.rows);
  const float* in = args.in.as<const float>() + first * plan.inner + x;
  const float** rows = reinterpret_cast<const float**>(memory) + args.reach;
  float* zeros = reinterpret_cast<float*>(memory + aligned((2 * args.reach + 1) * int64_t{sizeof(void*)}));
  float* to = zeros + plan.columns;
  for (int64_t i = 0; i < columns; ++i) zeros[i] = 0.0f;
  for (int64_t p = begin; p < end; ++p) {
    for (int64_t k = -args.reach; k <= args.reach; ++k) {
      const int64_t at = voxel_at(p + k, plan.size, args.boundary);
      rows[k] = at < 0 ? zeros : in + at * plan.inner;
    }
    smooth_row(
        args, columns,
        [=](int64_t i) __attribute__((always_inline)) {
          return [=](int64_t k) __attribute__((always_inline)) { return rows[k] + i; };
        },
        to);
    write_row(args.out, (first + p) * plan.inner + x, to, columns);
  }
}

void gaussian_workers(const void* context, int64_t begin, int64_t end) {
  const AxisPlan& plan = *static_cast<const AxisPlan*>(context);
  take_tasks(plan.workers, begin, end, [&](int64_t task, char* memory) {
    if (plan.args.axis == 2) return along_rows(plan, task, memory);
    across_rows(plan, task, memory);
  });
}

}  // namespace EK_ISA
}  // namespace ek
