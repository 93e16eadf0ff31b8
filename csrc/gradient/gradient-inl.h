// The body of the derivative of a warp by its displacement, compiled once per instruction set. Included after
// one of common/simd_*-inl.h; nothing of the standard library may be used here (see platform.h).
#pragma once

#include "gradient/gradient_plan.h"
#include "sample/fetch-inl.h"
#include "sample/locate-inl.h"
#include "sample/rows-inl.h"

namespace ek {
namespace EK_ISA {

// Where the vector at hand samples along an axis: at p + f.
template <int kDims>
struct Place {
  F f[3], p[3];

  EK_MEMBER Place(const Tensor& flow, const Row& row, int64_t x, int at, int count) {
    const float* component = flow.as<const float>() + row.n * kDims * flow.voxels() + row.first + x + at;
    for (int axis = 3 - kDims; axis < 3; ++axis, component += flow.voxels())
      f[axis] = load_some(component, count);
    p[0] = F(static_cast<float>(row.z));
    p[1] = F(static_cast<float>(row.y));
    p[2] = F(static_cast<float>(x + at)) + iota();
  }
};

// A sum of weighted voxels and its derivatives by the coordinates, z (where there is one) first, x last.
template <int kAxes>
struct Jet {
  F value;
  F slope[kAxes];
};

// Linear interpolation along one more axis.
EK_INLINE Jet<1> join(F first, F second, F weight) {
  return {blend(first, second, weight), {second - first}};
}
template <int kAxes>
EK_INLINE Jet<kAxes + 1> join(const Jet<kAxes>& first, const Jet<kAxes>& second, F weight) {
  Jet<kAxes + 1> joint;
  joint.value = blend(first.value, second.value, weight);
  joint.slope[0] = second.value - first.value;
  for (int axis = 0; axis < kAxes; ++axis) {
    joint.slope[axis + 1] = blend(first.slope[axis], second.slope[axis], weight);
  }
  return joint;
}

// line(z, y) is the jet along x of one of the lines of a cell.
template <int kDims, class Line>
EK_INLINE Jet<kDims> cell_jet(const Block& block, int at, const Line& line) {
  const F wy = load(block.weight[1][0] + at);
  const auto plane = [&](int z) __attribute__((always_inline)) { return join(line(z, 0), line(z, 1), wy); };
  if constexpr (kDims == 2) {
    return plane(0);
  } else {
    return join(plane(0), plane(1), load(block.weight[0][0] + at));
  }
}

template <int kDims, Access kAccess>
EK_INLINE Jet<kDims> inner_jet(const SamplePlan& plan, const float* image, const Block& block, int at) {
  const int64_t dy = step_along(plan.axis[1]), dz = step_along(plan.axis[0]);
  const int32_t* index = block.index + at;
  const F wx = load(block.weight[2][0] + at);
  return cell_jet<kDims>(block, at, [&](int z, int y) __attribute__((always_inline)) {
    F first, second;
    ends<kAccess>(image + z * dz + y * dy, index, first, second);
    return join(first, second, wx);
  });
}

template <int kDims>
EK_INLINE Jet<kDims> mapped_jet(const float* image, const Block& block, int at) {
  const auto offset = [&](int axis, int tap)
                          __attribute__((always_inline)) { return load(block.offset[axis][tap] + at); };
  const F wx = load(block.weight[2][0] + at);
  return cell_jet<kDims>(block, at, [&](int z, int y) __attribute__((always_inline)) {
    const I iz = kDims == 3 ? offset(0, z) : I(0), iy = offset(1, y);
    return join(gather_inside(image, corner_index(iz, iy, offset(2, 0))),
                gather_inside(image, corner_index(iz, iy, offset(2, 1))), wx);
  });
}

template <int kDims>
EK_INLINE Jet<kDims> linear_jet(const SamplePlan& plan, const float* image, const Block& block, int at) {
  switch (block.access[at / kLanes]) {
    case Access::kPairs:
      return inner_jet<kDims, Access::kPairs>(plan, image, block, at);
    case Access::kSingle:
      return inner_jet<kDims, Access::kSingle>(plan, image, block, at);
    default:
      return mapped_jet<kDims>(image, block, at);
  }
}

// Derivatives of cubic_near and cubic_far by x.
EK_HD EK_INLINE F cubic_near_slope(F x, float a) {
  return (F(3.0f * (a + 2.0f)) * x - F(2.0f * (a + 3.0f))) * x;
}
EK_HD EK_INLINE F cubic_far_slope(F x, float a) { return (F(3.0f * a) * x - F(10.0f * a)) * x + F(8.0f * a); }

// Derivatives of cubic_weights by t.
EK_HD EK_INLINE Cubic cubic_slopes(F t, float a) {
  const F back = F(1.0f) - t, zero = F(0.0f);
  return {{cubic_far_slope(t + F(1.0f), a), cubic_near_slope(t, a), zero - cubic_near_slope(back, a),
           zero - cubic_far_slope(back + F(1.0f), a)}};
}

// The derivatives of the weights in the block.
template <int kDims>
struct CubicSlopes {
  Cubic axis[3];

  EK_MEMBER CubicSlopes(const SamplePlan& plan, const Place<kDims>& place) {
    for (int i = 3 - kDims; i < 3; ++i) {
      const Split s = split_extended(plan.args.boundary, place.f[i], place.p[i], plan.axis[i].size, 3.0f);
      axis[i] = cubic_slopes(s.weight, plan.args.cubic);
    }
  }
};

template <int kDims>
EK_INLINE Jet<kDims> cubic_jet(const float* image, const Block& block, int at,
                               const CubicSlopes<kDims>& slopes) {
  const auto weight = [&](int axis, int tap)
                          __attribute__((always_inline)) { return load(block.weight[axis][tap] + at); };
  Jet<kDims> total;
  total.value = F(0.0f);
  for (F& slope : total.slope) slope = F(0.0f);
  EK_NO_UNROLL
  for (int k = 0; k < (kDims == 3 ? 4 : 1); ++k) {
    const I z = kDims == 3 ? load(block.offset[0][k] + at) : I(0);
    F plane(0.0f), along_y(0.0f), along_x(0.0f);
    for (int j = 0; j < 4; ++j) {
      const I y = load(block.offset[1][j] + at);
      F line(0.0f), slope(0.0f);
      for (int i = 0; i < 4; ++i) {
        const F voxel = gather_inside(image, corner_index(z, y, load(block.offset[2][i] + at)));
        line = line + voxel * weight(2, i);
        slope = slope + voxel * slopes.axis[2].weight[i];
      }
      plane = plane + line * weight(1, j);
      along_y = along_y + line * slopes.axis[1].weight[j];
      along_x = along_x + slope * weight(1, j);
    }
    const F wz = kDims == 3 ? weight(0, k) : F(1.0f);
    if constexpr (kDims == 3) total.slope[0] = total.slope[0] + plane * slopes.axis[0].weight[k];
    total.slope[kDims - 2] = total.slope[kDims - 2] + along_y * wz;
    total.slope[kDims - 1] = total.slope[kDims - 1] + along_x * wz;
  }
  return total;
}

// Which lanes know all their coordinates and, along each axis, have one that was not clamped: a change of one
// that was changes nothing.
template <int kDims>
struct Sensitivity {
  M moves[kDims];
  M known;

  EK_MEMBER Sensitivity(const SamplePlan& plan, const Place<kDims>& place) {
    const Boundary boundary = plan.args.boundary;
    const M always = greater_equal(F(0.0f), F(0.0f));
    const bool clamps = plan.args.order == 1 && (boundary == Boundary::kEdge || boundary == Boundary::kZero);
    const float beyond = boundary == Boundary::kEdge ? 0.0f : 1.0f;
    known = always;
    for (int axis = 3 - kDims; axis < 3; ++axis) {
      const F f = place.f[axis], p = place.p[axis];
      known = both(known, greater_equal(max_(F(0.0f), f), F(0.0f)));  // false for NaN alone
      const M inside = both(greater_equal(f, F(-beyond) - p),
                            greater_equal(F(plan.axis[axis].size - 1.0f + beyond) - p, f));
      moves[axis - (3 - kDims)] = clamps ? inside : always;
    }
  }
};

template <int kDims, int kOrder>
EK_INLINE void gradient_block(const GradientPlan& plan, const Row& row, int64_t x, int count,
                              const Block& block) {
  const Gradient& args = plan.args;
  const int64_t voxels = args.image.voxels(), first = row.n * args.image.c * voxels;
  const float* image = args.image.as<const float>() + first;
  const float* cotangent = args.cotangent.as<const float>() + first + row.first + x;
  float* out = args.out.as<float>() + row.n * kDims * voxels + row.first + x;
  each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
    const Place<kDims> place(args.flow, row, x, at, lanes);
    F total[kDims];
    for (F& component : total) component = F(0.0f);
    const auto add = [&](int64_t c, const Jet<kDims>& jet) __attribute__((always_inline)) {
      const F factor = load_some(cotangent + c * voxels + at, lanes);
      for (int k = 0; k < kDims; ++k) total[k] = total[k] + factor * jet.slope[k];
    };
    if constexpr (kOrder == 1) {
      for (int64_t c = 0; c < args.image.c; ++c) {
        add(c, linear_jet<kDims>(plan.sample, image + c * voxels, block, at));
      }
    } else {
      const CubicSlopes<kDims> slopes(plan.sample, place);
      for (int64_t c = 0; c < args.image.c; ++c)
        add(c, cubic_jet<kDims>(image + c * voxels, block, at, slopes));
    }
    const Sensitivity<kDims> sensitive(plan.sample, place);
    for (int k = 0; k < kDims; ++k) {
      const F slope = select(sensitive.moves[k], total[k], F(0.0f));
      store_some(out + k * voxels + at, select(sensitive.known, slope, F(__builtin_nanf(""))), lanes);
    }
  });
}

template <int kDims>
EK_INLINE void nearest_gradient_block(const GradientPlan& plan, const Row& row, int64_t x, int count) {
  const int64_t voxels = plan.args.image.voxels();
  float* out = plan.args.out.as<float>() + row.n * kDims * voxels + row.first + x;
  for (int k = 0; k < kDims; ++k) {
    for (int i = 0; i < count; ++i) out[k * voxels + i] = 0.0f;
  }
}

#if !defined(EK_DEVICE)  // whose threads have a voxel each

template <int kDims>
void gradient_rows(const GradientPlan& plan, int64_t begin, int64_t end) {
  Block block;
  each_block(plan.sample, begin, end, [&](const Row& row, int64_t x, int count) {
    if (plan.args.order == 0) return nearest_gradient_block<kDims>(plan, row, x, count);
    locate<kDims, Displacement<float, kDims>>(plan.sample, row, x, count, block);
    if (plan.args.order == 1) {
      gradient_block<kDims, 1>(plan, row, x, count, block);
    } else {
      gradient_block<kDims, 3>(plan, row, x, count, block);
    }
  });
}

void gradient_tasks(const void* context, int64_t begin, int64_t end) {
  const GradientPlan& plan = *static_cast<const GradientPlan*>(context);
  if (plan.args.dims == 3) {
    gradient_rows<3>(plan, begin, end);
  } else {
    gradient_rows<2>(plan, begin, end);
  }
}

#endif

}  // namespace EK_ISA
}  // namespace ek
