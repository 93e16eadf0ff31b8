// Filtering along one axis, compiled once per instruction set. Included after one of common/simd_*-inl.h;
// nothing of the standard library may be used here (see platform.h).
//
// Across lines, lanes are neighbouring lines. Along lines, lanes are neighbouring voxels of a line, whose
// taps lie wherever the table says.
#pragma once

#include "common/typed-inl.h"
#include "filter/filter_plan.h"

namespace ek {
namespace EK_ISA {

// Vectors and lines that are worked on at once: enough to use whole cache lines and to read a table rarely.
constexpr int kGroup = 4;

// One new voxel of kCount vectors of neighbouring lines; the last holds `lanes` of them.
template <int kCount, class In, class Out>
EK_INLINE void across(const AxisFilter& args, int64_t p, const In* in, Out* out, int lanes) {
  const auto read = [&](const In* line, int i) __attribute__((always_inline)) {
    return kCount > 1 ? load(line + i * kLanes) : load_some(line, lanes);
  };
  const In* base = in + args.base[p] * args.inner;
  F centre[kCount], sum[kCount];
  for (int i = 0; i < kCount; ++i) {
    centre[i] = read(base, i);
    sum[i] = args.scale[p] == 0.0f ? F(0.0f) : centre[i] * F(args.scale[p]);
  }
  for (int64_t k = 0; k < args.taps; ++k) {
    const float weight = args.weight[k * args.columns + p];
    if (weight == 0.0f) continue;
    const In* line = in + args.index[k * args.columns + p] * args.inner;
    for (int i = 0; i < kCount; ++i) sum[i] = sum[i] + (read(line, i) - centre[i]) * F(weight);
  }
  for (int i = 0; i < kCount; ++i) {
    store_some(out + i * kLanes, fit(out, sum[i]), kCount > 1 ? kLanes : lanes);
  }
}

#if !defined(EK_DEVICE)  // whose threads have a voxel each

template <class In, class Out>
void across_lines(const FilterPlan& plan, int64_t task) {
  const AxisFilter& args = plan.args;
  const int64_t outer = task / plan.tiles, begin = (task - outer * plan.tiles) * plan.tile;
  const int64_t end = begin + plan.tile < args.inner ? begin + plan.tile : args.inner;
  const In* in = static_cast<const In*>(args.in) + outer * args.in_size * args.inner;
  Out* out = static_cast<Out*>(args.out) + outer * args.out_size * args.inner;
  for (int64_t p = 0; p < args.out_size; ++p, out += args.inner) {
    int64_t x = begin;
    for (; x + kGroup * kLanes <= end; x += kGroup * kLanes) {
      across<kGroup>(args, p, in + x, out + x, kLanes);
    }
    for (; x < end; x += kLanes) {
      across<1>(args, p, in + x, out + x, end - x < kLanes ? static_cast<int>(end - x) : kLanes);
    }
  }
}

// Voxels of a line at the indices of a vector. Most lie within two vectors from the first one.
struct Spread {
  I index, rest;
  int32_t first;
  bool close;

  EK_MEMBER Spread(const int32_t* at, int64_t size) : index(load(at)), first(*at) {
    rest = index - I(first);
    close = first + 2 * kLanes <= size && all(greater_equal(rest, I(0))) &&
            all(greater_equal(I(2 * kLanes - 1), rest));
  }
  EK_MEMBER F read(const float* line) const {
    if (!close) return gather(line, index);
    return pick(load(line + first), load(line + first + kLanes), rest);
  }
};

EK_INLINE M is_used(F weight) { return greater(max_(weight, F(0.0f) - weight), F(0.0f)); }

// kCount lines from the first one on.
template <int kCount, class Out>
EK_INLINE void along(const AxisFilter& args, const float* in, Out* out) {
  for (int64_t p = 0; p < args.out_size; p += kLanes) {
    const int lanes = args.out_size - p < kLanes ? static_cast<int>(args.out_size - p) : kLanes;
    F centre[kCount], sum[kCount];
    const Spread base(args.base + p, args.in_size);
    const F scale = load(args.scale + p);
    for (int i = 0; i < kCount; ++i) {
      centre[i] = base.read(in + i * args.in_size);
      sum[i] = select(is_used(scale), centre[i] * scale, F(0.0f));
    }
    for (int64_t k = 0; k < args.taps; ++k) {
      const Spread tap(args.index + k * args.columns + p, args.in_size);
      const F weight = load(args.weight + k * args.columns + p);
      const M used = is_used(weight);
      for (int i = 0; i < kCount; ++i) {
        const F difference = tap.read(in + i * args.in_size) - centre[i];
        sum[i] = sum[i] + select(used, difference * weight, F(0.0f));
      }
    }
    for (int i = 0; i < kCount; ++i) store_some(out + i * args.out_size + p, fit(out, sum[i]), lanes);
  }
}

template <class Out>
void along_lines(const FilterPlan& plan, int64_t task) {
  const AxisFilter& args = plan.args;
  const int64_t begin = task * plan.lines;
  const int64_t end = begin + plan.lines < args.outer ? begin + plan.lines : args.outer;
  const float* in = static_cast<const float*>(args.in) + begin * args.in_size;
  Out* out = static_cast<Out*>(args.out) + begin * args.out_size;
  int64_t line = begin;
  for (; line + kGroup <= end; line += kGroup, in += kGroup * args.in_size, out += kGroup * args.out_size) {
    along<kGroup>(args, in, out);
  }
  for (; line < end; ++line, in += args.in_size, out += args.out_size) along<1>(args, in, out);
}

using FilterTask = void (*)(const FilterPlan& plan, int64_t task);

template <class In>
EK_INLINE FilterTask choose_narrow(const AxisFilter& args) {
  return args.out_type == Type::kFloat32 ? across_lines<In, float> : across_lines<In, In>;
}

template <class Out>
EK_INLINE FilterTask choose_direction(const AxisFilter& args) {
  return args.inner > 1 ? across_lines<float, Out> : along_lines<Out>;
}

EK_INLINE FilterTask choose_filter(const AxisFilter& args) {
  switch (args.in_type) {
    case Type::kFloat16:
      return choose_narrow<Half>(args);
    case Type::kUint8:
      return choose_narrow<uint8_t>(args);
    case Type::kInt16:
      return choose_narrow<int16_t>(args);
    default:
      break;
  }
  switch (args.out_type) {
    case Type::kFloat16:
      return choose_direction<Half>(args);
    case Type::kUint8:
      return choose_direction<uint8_t>(args);
    case Type::kInt16:
      return choose_direction<int16_t>(args);
    default:
      return choose_direction<float>(args);
  }
}

void filter_tasks(const void* context, int64_t begin, int64_t end) {
  const FilterPlan& plan = *static_cast<const FilterPlan*>(context);
  const FilterTask run = choose_filter(plan.args);
  for (int64_t task = begin; task < end; ++task) run(plan, task);
}

#endif

}  // namespace EK_ISA
}  // namespace ek
