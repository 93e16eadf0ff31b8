// The rows of a Jacobian determinant, compiled once per instruction set. Included after one of
// common/simd_*-inl.h; nothing of the standard library may be used here (see platform.h).
//
// Nothing but the first and the last lanes of a row know of borders along x: a border along z or y is a
// matter of a whole row, whose neighbour on that side is then the row itself.
#pragma once

#include "jacobian/jacobian_math-inl.h"
#include "jacobian/jacobian_plan.h"

namespace ek {
namespace EK_ISA {

// Where in a row the lanes are.
enum class Place : uint8_t {
  kFirst,   // at its begin
  kInside,  // with a neighbour on both sides
  kLast,    // at its end
  kAlone,   // all of it, as it has no more voxels than there are lanes
};

// One row of voxels and what surrounds it.
template <class T>
struct Row {
  const T* flow;  // voxel (z, y, 0) of component 0
  float* out;     // or null
  int64_t width, voxels;
  Ends z, y;             // in elements
  float z_step, y_step;  // voxels between them
};

// A row of fewer voxels than lanes. The lanes beside it are 0.
template <class T>
EK_INLINE F load_part(const T* p, int64_t n) {
  alignas(64) T lanes[kLanes] = {};
  for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
  return load(lanes);
}

template <Place kPlace, class T>
EK_INLINE F load_at(const Row<T>& row, const T* p) {
  return kPlace == Place::kAlone ? load_part(p, row.width) : load(p);
}

// Flat says that the axis may be of one voxel, where even a NaN has no slope.
template <Place kPlace, bool kFlat, class T>
EK_INLINE F across(const Row<T>& row, const T* p, Ends e) {
  if (kFlat && e.low == e.high) return F(0.0f);
  return load_at<kPlace>(row, p + e.high) - load_at<kPlace>(row, p + e.low);
}

template <Place kPlace, class T>
EK_INLINE F along(const Row<T>& row, const T* p) {
  if constexpr (kPlace == Place::kInside) {
    return load(p + 1) - load(p - 1);
  } else {
    const F here = load_at<kPlace>(row, p);
    const auto before = [&]() __attribute__((always_inline)) {
      return pick(here, here, max_(int_iota() - I(1), I(0)));
    };
    const auto after = [&](int last) __attribute__((always_inline)) {
      return pick(here, here, min_(int_iota() + I(1), I(last)));
    };
    if constexpr (kPlace == Place::kFirst) return load(p + 1) - before();
    if constexpr (kPlace == Place::kLast) return after(kLanes - 1) - load(p - 1);
    if constexpr (kPlace == Place::kAlone) {
      return row.width == 1 ? F(0.0f) : after(static_cast<int>(row.width) - 1) - before();
    }
  }
}

// Voxels between the ends of the difference along x.
template <Place kPlace>
EK_INLINE F x_step(int64_t width) {
  const F two(2.0f);
  if (kPlace == Place::kFirst) return min_(iota() + F(1.0f), two);
  if (kPlace == Place::kLast) return min_(F(static_cast<float>(kLanes)) - iota(), two);
  if (kPlace == Place::kAlone) {
    return min_(min_(iota() + F(1.0f), F(static_cast<float>(width)) - iota()), two);
  }
  return two;
}

template <int kDims, bool kFlat, Place kPlace, class T>
EK_INLINE F determinant_at(const Row<T>& row, int64_t x) {
  F m[kDims][kDims];
  const T* p = row.flow + x;
  for (int c = 0; c < kDims; ++c, p += row.voxels) {
    if constexpr (kDims == 3) m[c][0] = across<kPlace, kFlat>(row, p, row.z);
    m[c][kDims - 2] = across<kPlace, kFlat>(row, p, row.y);
    m[c][kDims - 1] = along<kPlace>(row, p);
  }
  return volume_change(m, row.z_step, row.y_step, x_step<kPlace>(row.width));
}

// Returns how many determinants are positive.
template <int kDims, bool kFlat, class T>
EK_INLINE int64_t determinants(const Row<T>& row) {
  const F zero(0.0f);
  const int64_t width = row.width;
  if (width <= kLanes) {
    const F det = determinant_at<kDims, kFlat, Place::kAlone>(row, 0);
    if (row.out) store_first(row.out, det, static_cast<int>(width));
    return count(both(greater(det, zero), greater(F(static_cast<float>(width)), iota())));
  }
  const auto put = [&](int64_t x, F det) __attribute__((always_inline)) {
    if (row.out) store(row.out + x, det);
    return greater(det, zero);
  };
  int64_t positive = count(put(0, determinant_at<kDims, kFlat, Place::kFirst>(row, 0)));
  int64_t x = kLanes;
  for (; x + kLanes < width; x += kLanes) {
    positive += count(put(x, determinant_at<kDims, kFlat, Place::kInside>(row, x)));
  }
  // The last lanes may do some voxels again, which do not count twice.
  const M again = put(width - kLanes, determinant_at<kDims, kFlat, Place::kLast>(row, width - kLanes));
  return positive + count(both(again, greater_equal(iota(), F(static_cast<float>(kLanes - (width - x))))));
}

template <int kDims, bool kFlat, class T>
void block(const JacobianPlan& plan, int64_t task) {
  const Tensor& flow = plan.args.flow;
  const int64_t column = task / plan.layers % plan.columns, layer = task % plan.layers;
  const int64_t n = task / (plan.layers * plan.columns);
  const int64_t plane = flow.h * flow.w, voxels = flow.d * plane;
  const int64_t z_begin = layer * plan.planes, y_begin = column * plan.rows;
  const int64_t z_end = z_begin + plan.planes < flow.d ? z_begin + plan.planes : flow.d;
  const int64_t y_end = y_begin + plan.rows < flow.h ? y_begin + plan.rows : flow.h;
  const T* first = flow.as<const T>() + n * kDims * voxels;
  float* out = plan.args.out.as<float>();
  Row<T> row;
  row.width = flow.w;
  row.voxels = voxels;
  int64_t positive = 0;
  for (int64_t z = z_begin; z < z_end; ++z) {
    row.z = ends(z, flow.d) * plane;
    row.z_step = voxels_between(ends(z, flow.d));
    for (int64_t y = y_begin; y < y_end; ++y) {
      row.y = ends(y, flow.h) * flow.w;
      row.y_step = voxels_between(ends(y, flow.h));
      row.flow = first + z * plane + y * flow.w;
      row.out = out ? out + n * voxels + z * plane + y * flow.w : nullptr;
      positive += determinants<kDims, kFlat>(row);
    }
  }
  if (plan.args.folding) {
    const int64_t done = (z_end - z_begin) * (y_end - y_begin) * flow.w;
    __atomic_fetch_add(plan.args.folding + n, done - positive, __ATOMIC_RELAXED);
  }
}

template <int kDims, class T>
void blocks(const JacobianPlan& plan, int64_t begin, int64_t end) {
  const Tensor& flow = plan.args.flow;
  const bool flat = flow.h == 1 || (kDims == 3 && flow.d == 1);
  for (int64_t task = begin; task < end; ++task) {
    if (flat) {
      block<kDims, true, T>(plan, task);
    } else {
      block<kDims, false, T>(plan, task);
    }
  }
}

void jacobian_tasks(const void* context, int64_t begin, int64_t end) {
  const JacobianPlan& plan = *static_cast<const JacobianPlan*>(context);
  const bool volume = plan.args.dims == 3, half = plan.args.flow.type == Type::kFloat16;
  if (volume && half) {
    blocks<3, Half>(plan, begin, end);
  } else if (volume) {
    blocks<3, float>(plan, begin, end);
  } else if (half) {
    blocks<2, Half>(plan, begin, end);
  } else {
    blocks<2, float>(plan, begin, end);
  }
}

}  // namespace EK_ISA
}  // namespace ek
