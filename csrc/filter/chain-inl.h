// Slabs of an image through several filters. Included after filter/filter-inl.h.
#pragma once

#include "filter/filter-inl.h"

namespace ek {
namespace EK_ISA {

template <class T>
EK_INLINE void widen_all(const void* from, int64_t count, float* to) {
  const T* typed = static_cast<const T*>(from);
  for (int64_t i = 0; i < count; i += kLanes) {
    const int lanes = count - i < kLanes ? static_cast<int>(count - i) : kLanes;
    store_some(to + i, load_some(typed + i, lanes), lanes);
  }
}

inline void widen_all(Type type, const void* from, int64_t count, float* to) {
  if (type == Type::kFloat16) return widen_all<Half>(from, count, to);
  if (type == Type::kUint8) return widen_all<uint8_t>(from, count, to);
  widen_all<int16_t>(from, count, to);
}

inline void filter_all(const AxisFilter& args) {
  const FilterPlan plan = cut_filter(args);
  const FilterTask run = choose_filter(args);
  for (int64_t task = 0; task < plan.tasks; ++task) run(plan, task);
}

inline void chain_slab(const ChainPlan& plan, int64_t task, char* memory) {
  const FilterChain& args = plan.args;
  const int64_t n = task / plan.slabs, begin = task % plan.slabs * plan.planes;
  const int64_t rest = plan.new_planes - begin, planes = rest < plan.planes ? rest : plan.planes;
  const int64_t plane = args.size[1] * args.size[2] * args.inner;
  int64_t size[kMaxStages] = {plan.mixes_planes ? args.size[0] : planes, args.size[1], args.size[2]};
  const int64_t first = n * args.size[0] * plane + (plan.mixes_planes ? 0 : begin * plane);
  const char* from = static_cast<const char*>(args.in) + first * size_of(args.in_type);
  const int64_t target = (n * plan.new_planes + begin) * plan.new_plane;
  char* const out = static_cast<char*>(args.out) + target * size_of(args.out_type);
  float* spaces[2] = {reinterpret_cast<float*>(memory), reinterpret_cast<float*>(memory) + plan.space};
  Type type = args.in_type;
  if (plan.widens) {
    widen_all(type, from, size[0] * plane, spaces[1]);
    from = reinterpret_cast<const char*>(spaces[1]);
    type = Type::kFloat32;
  }
  FilterChain slab = args;
  slab.outer = 1;
  for (int s = 0; s < args.stages; ++s) {
    FilterStage stage = args.stage[s];
    if (stage.axis == 0) {
      stage.size = planes;
      stage.base += begin;
      stage.scale += begin;
      stage.index += begin;
      stage.weight += begin;
    }
    const bool last = s + 1 == args.stages;
    AxisFilter filter = stage_filter(slab, stage, size);
    filter.in = from;
    filter.in_type = type;
    filter.out = last ? static_cast<void*>(out) : spaces[s % 2];
    filter.out_type = last ? args.out_type : Type::kFloat32;
    filter_all(filter);
    from = static_cast<const char*>(filter.out);
    type = filter.out_type;
  }
}

void chain_workers(const void* context, int64_t begin, int64_t end) {
  const ChainPlan& plan = *static_cast<const ChainPlan*>(context);
  take_tasks(plan.workers, begin, end, [&](int64_t task, char* memory) { chain_slab(plan, task, memory); });
}

}  // namespace EK_ISA
}  // namespace ek
