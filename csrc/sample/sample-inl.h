// The body of all sampling, compiled once per instruction set. Included after one of common/simd_*-inl.h;
// nothing of the standard library may be used here (see platform.h).
#pragma once

#include "sample/fetch_last-inl.h"
#include "sample/locate-inl.h"
#include "sample/rows-inl.h"

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

void sample_tasks(const void* context, int64_t begin, int64_t end) {
  const SamplePlan& plan = *static_cast<const SamplePlan*>(context);
  const Locate locate = choose_locate(plan.args);
  const Fetch fetch = choose_fetch(plan.args);
  Block block;
  each_block(plan, begin, end, [&](const Row& row, int64_t x, int count) {
    locate(plan, row, x, count, block);
    fetch(plan, row, x, count, block);
  });
}

}  // namespace EK_ISA
}  // namespace ek
