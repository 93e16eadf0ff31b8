// Coordinate sources other than displacements. What they need is worked out for a block at once, in plain
// loops that compilers turn into vectors.
#pragma once

#include "sample/block-inl.h"

namespace ek {
namespace EK_ISA {

// A source gives the coordinates of one vector along axis 0, 1 or 2 (z, y, x) as p + f: f(), p(), and p again
// as whole(). (Three functions, as compilers do not keep a struct of vectors in registers.) Lanes behind the
// end of a row are somewhere near the image.

EK_INLINE int block_count(const SamplePlan& plan, int64_t begin) {
  if constexpr (kBlock == 1) return 1;
  const int64_t rest = plan.args.out.w - begin;
  return static_cast<int>(rest < kBlock ? rest : kBlock);
}

// Whole vectors that hold so many lanes.
EK_INLINE int padded(int count) { return (count + kLanes - 1) / kLanes * kLanes; }

// The vectors [..., kDims] of a block, as one line per component. Lanes behind the last one are 0.
template <int kDims>
struct Components {
  alignas(64) float line[kDims][kBlock];

  EK_MEMBER Components(const SamplePlan& plan, const Row& row, int64_t begin) {
    const Tensor& coordinates = plan.args.coordinates;
    const float* vectors =
        coordinates.as<const float>() + (row.n * coordinates.voxels() + row.first + begin) * kDims;
    const int count = block_count(plan, begin);
    for (int i = 0; i < count; ++i) {
      for (int c = 0; c < kDims; ++c) line[c][i] = vectors[i * kDims + c];
    }
    for (int i = count; i < padded(count); ++i) {
      for (int c = 0; c < kDims; ++c) line[c][i] = 0.0f;
    }
  }
};

// A normalised coordinate in voxels, mirrored into [-shift, span - shift] to fold it. The operations are
// PyTorch's, in its order. What folding takes off is a whole number of turns, which is exact.
EK_INLINE void to_voxels(float* v, int count, float span, float shift, bool fold) {
  const float scale = span / 2.0f, period = 2.0f * span, turns = span > 0.0f ? 0.5f / span : 0.0f;
  for (int i = 0; i < count; ++i) v[i] = (v[i] + 1.0f) * scale - shift;
  if (!fold) return;
  for (int i = 0; i < count; ++i) {
    const float from = v[i] + shift;
    const float rest = __builtin_fabsf(from - period * __builtin_rintf(from * turns));
    v[i] = (span < rest ? span : rest) - shift;
  }
}

EK_INLINE void round_even(float* v, int count) {
  for (int i = 0; i < count; ++i) v[i] = __builtin_rintf(v[i]);
}

// The grid of PyTorch and ONNX: components (x, y, z), the image being [-1, 1].
template <int kDims>
struct Grid {
  Components<kDims> at;
  bool split;  // a coordinate may be large and must not be clamped as a displacement is
  float last[3];

  EK_MEMBER Grid(const SamplePlan& plan, const Row& row, int64_t begin)
      : at(plan, row, begin), split(plan.args.order == 3 && plan.args.fold) {
    const Sample& args = plan.args;
    const int count = padded(block_count(plan, begin));
    for (int axis = 3 - kDims; axis < 3; ++axis) {
      const int32_t size = plan.axis[axis].count;
      last[axis] = static_cast<float>(size - 1);
      to_voxels(at.line[2 - axis], count, static_cast<float>(args.align_corners ? size - 1 : size),
                args.align_corners ? 0.0f : 0.5f, args.fold);
      if (args.order == 0) round_even(at.line[2 - axis], count);
    }
  }

  template <int kAxis>
  EK_MEMBER F p(int lane, int) const {
    // A number, if the coordinate is NaN too.
    return split ? max_(F(0.0f), min_(floor_(load(at.line[2 - kAxis] + lane)), F(last[kAxis]))) : F(0.0f);
  }
  template <int kAxis>
  EK_MEMBER F f(int lane, int count) const {
    const F v = load(at.line[2 - kAxis] + lane);
    return split ? v - p<kAxis>(lane, count) : v;
  }
  template <int kAxis>
  EK_MEMBER I whole(int lane, int count) const {
    return to_int(p<kAxis>(lane, count));
  }
};

// Points (z, y, x) in voxels.
template <int kDims>
struct Points {
  Components<kDims> at;

  EK_MEMBER Points(const SamplePlan& plan, const Row& row, int64_t begin) : at(plan, row, begin) {}

  template <int kAxis>
  EK_MEMBER F f(int lane, int) const {
    return load(at.line[kAxis - (3 - kDims)] + lane);
  }
  template <int>
  EK_MEMBER F p(int, int) const {
    return F(0.0f);
  }
  template <int>
  EK_MEMBER I whole(int, int) const {
    return I(0);
  }
};

// An affine map of output voxels. In float64, as the position is lost in float32 where steps are long.
template <int kDims>
struct Affine {
  alignas(64) float rest[3][kBlock];
  alignas(64) int32_t voxel[3][kBlock];

  EK_MEMBER Affine(const SamplePlan& plan, const Row& row, int64_t begin) {
    const Boundary boundary = plan.args.boundary;
    const bool clamped = boundary == Boundary::kZero || boundary == Boundary::kEdge;
    const int count = padded(block_count(plan, begin));
    for (int axis = 3 - kDims; axis < 3; ++axis) {
      const double* m = plan.args.matrix[axis];
      const double line = m[0] * static_cast<double>(row.z) + m[1] * static_cast<double>(row.y);
      const bool nearest = plan.args.order == 0;  // ties are decided in float64
      if (clamped) {
        const double last = static_cast<double>(plan.axis[axis].count - 1);
        for (int i = 0; i < count; ++i) {
          double v = (line + m[2] * static_cast<double>(begin + i)) + m[3];
          v = nearest ? __builtin_floor(v + 0.5) : v;
          double p = __builtin_floor(v);
          p = p < 0.0 ? 0.0 : (p > last ? last : p);
          voxel[axis][i] = static_cast<int32_t>(p);
          rest[axis][i] = static_cast<float>(v - p);
        }
      } else {
        const double period = static_cast<double>(plan.axis[axis].period);
        for (int i = 0; i < count; ++i) {
          double v = (line + m[2] * static_cast<double>(begin + i)) + m[3];
          v = nearest ? __builtin_floor(v + 0.5) : v;
          v = v - period * __builtin_floor(v / period);
          const double p = __builtin_floor(v);
          voxel[axis][i] = static_cast<int32_t>(p);
          rest[axis][i] = static_cast<float>(v - p);
        }
      }
    }
  }

  template <int kAxis>
  EK_MEMBER F f(int lane, int) const {
    return load(rest[kAxis] + lane);
  }
  template <int kAxis>
  EK_MEMBER F p(int lane, int) const {
    return to_float(load(voxel[kAxis] + lane));
  }
  template <int kAxis>
  EK_MEMBER I whole(int lane, int) const {
    return load(voxel[kAxis] + lane);
  }
};

}  // namespace EK_ISA
}  // namespace ek
