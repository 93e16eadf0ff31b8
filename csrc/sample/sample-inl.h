// The body of all sampling, compiled once per instruction set. Included after one of common/simd_*-inl.h;
// nothing of the standard library may be used here (see platform.h).
#pragma once

#include "sample/fetch_last-inl.h"
#include "sample/locate-inl.h"

namespace ek {
namespace EK_ISA {

template <class T, int kDims, int kOrder>
EK_INLINE Fetch choose_layout(const Sample& args) {
  if (args.image.channels_last) return fetch_last<T, kDims, kOrder>;
  if constexpr (sizeof(T) == sizeof(float) && kOrder == 1) {
    if (args.finish == Finish::kAddFlow) return fetch<T, kDims, kOrder, Finish::kAddFlow>;
  }
  return fetch<T, kDims, kOrder, Finish::kStore>;
}

template <class T, int kDims>
EK_INLINE Fetch choose_order(const Sample& args) {
  if (args.order == 0) return choose_layout<T, kDims, 0>(args);
  return args.order == 1 ? choose_layout<T, kDims, 1>(args) : choose_layout<T, kDims, 3>(args);
}

template <class T>
EK_INLINE Fetch choose_dims(const Sample& args) {
  return args.dims == 3 ? choose_order<T, 3>(args) : choose_order<T, 2>(args);
}

EK_INLINE Fetch choose_fetch(const Sample& args) {
  switch (args.image.type) {
    case Type::kFloat16:
      return choose_dims<Half>(args);
    case Type::kUint8:
      return choose_dims<uint8_t>(args);
    case Type::kInt16:
      return choose_dims<int16_t>(args);
    default:
      return choose_dims<float>(args);
  }
}

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

void sample_tasks(const void* context, int64_t begin, int64_t end) {
  const SamplePlan& plan = *static_cast<const SamplePlan*>(context);
  const Locate locate = choose_locate(plan.args);
  const Fetch fetch = choose_fetch(plan.args);
  const int64_t width = plan.args.out.w;
  Block block;
  each_row(plan, begin, end, [&](const Row& row) {
    for (int64_t x = 0; x < width; x += kBlock) {
      const int count = static_cast<int>(width - x < kBlock ? width - x : kBlock);
      locate(plan, row, x, count, block);
      fetch(plan, row, x, count, block);
    }
  });
}

}  // namespace EK_ISA
}  // namespace ek
