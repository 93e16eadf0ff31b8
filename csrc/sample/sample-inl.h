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

// A store to memory that is not in the cache waits for it.
EK_INLINE void prefetch_output(const Tensor& out, const Row& row, int64_t x, int count) {
  constexpr int kLineBytes = 64;
  const int64_t size = size_of(out.type), first = row.n * out.c * out.voxels();
  const bool last = out.channels_last;
  const int64_t bytes = count * size * (last ? out.c : 1);
  for (int64_t c = 0; c < (last ? 1 : out.c); ++c) {
    const int64_t element = last ? first + (row.first + x) * out.c : first + c * out.voxels() + row.first + x;
    const char* line = out.as<const char>() + element * size;
    for (int64_t byte = 0; byte < bytes; byte += kLineBytes) __builtin_prefetch(line + byte, 1);
  }
}

void sample_tasks(const void* context, int64_t begin, int64_t end) {
  const SamplePlan& plan = *static_cast<const SamplePlan*>(context);
  const Locate locate = choose_locate(plan.args);
  const Fetch fetch = choose_fetch(plan.args);
  // Fetching is one block behind locating: the lines of the image that were asked for have arrived by then.
  struct Located {
    Row row;
    int64_t x;
    int count;
    Block block;
  } turns[2];
  Located *next = &turns[0], *ready = nullptr;
  const auto fetch_ready = [&] { fetch(plan, ready->row, ready->x, ready->count, ready->block); };
  each_block(plan, begin, end, [&](const Row& row, int64_t x, int count) {
    next->row = row;
    next->x = x;
    next->count = count;
    prefetch_output(plan.args.out, row, x, count);
    locate(plan, row, x, count, next->block);
    if (ready) fetch_ready();
    ready = next;
    next = &turns[ready == &turns[0]];
  });
  if (ready) fetch_ready();
}

}  // namespace EK_ISA
}  // namespace ek
