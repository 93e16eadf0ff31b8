// The Jacobian determinant of one voxel, as a thread of a device computes it. Included after
// common/simd_device-inl.h.
#pragma once

#include "jacobian/jacobian_math-inl.h"
#include "jacobian/jacobian_plan.h"

namespace ek {
namespace EK_ISA {

// Rows are those of the field.
template <class T, int kDims>
struct JacobianVoxel {
  JacobianDeterminant args;

  EK_MEMBER int64_t rows() const { return args.flow.n * args.flow.d * args.flow.h; }
  EK_MEMBER int64_t items() const { return args.flow.w; }

  // Whether the voxel is one that folds. Its determinant is stored, if asked for.
  EK_MEMBER bool operator()(uint32_t r, uint32_t x) const {
    const Tensor& flow = args.flow;
    const uint32_t h = static_cast<uint32_t>(flow.h), layers = static_cast<uint32_t>(flow.d) * h;
    const uint32_t n = r / layers, within = r - n * layers, z = within / h, y = within - z * h;
    const int64_t plane = flow.h * flow.w, voxels = flow.d * plane, at = within * flow.w + x;
    const Ends axis[3] = {ends(z, flow.d), ends(y, flow.h), ends(x, flow.w)};
    const Ends step[3] = {axis[0] * plane, axis[1] * flow.w, axis[2]};
    const T* p = flow.as<const T>() + n * kDims * voxels + at;
    F m[kDims][kDims];
    for (int component = 0; component < kDims; ++component, p += voxels) {
      for (int k = 0; k < kDims; ++k) {
        const Ends e = step[k + 3 - kDims];
        // Along an axis of one voxel even a NaN has no slope.
        m[component][k] = e.low == e.high ? F(0.0f) : load(p + e.high) - load(p + e.low);
      }
    }
    const float z_step = kDims == 3 ? voxels_between(axis[0]) : 1.0f, y_step = voxels_between(axis[1]),
                x_step = voxels_between(axis[2]);
    const F det = volume_change(m, z_step, y_step, F(x_step));
    if (args.out.data) store(args.out.as<float>() + n * voxels + at, det);
    return !greater(det, F(0.0f));
  }

  // Of which sample a row is.
  EK_MEMBER uint32_t sample_of(uint32_t r) const {
    return r / static_cast<uint32_t>(args.flow.d * args.flow.h);
  }
};

// Calls run(voxel) with the one for the arguments.
template <class Run>
void with_jacobian_voxel(const JacobianDeterminant& args, const Run& run) {
  const bool half = args.flow.type == Type::kFloat16;
  if (args.dims == 3) return half ? run(JacobianVoxel<Half, 3>{args}) : run(JacobianVoxel<float, 3>{args});
  return half ? run(JacobianVoxel<Half, 2>{args}) : run(JacobianVoxel<float, 2>{args});
}

}  // namespace EK_ISA
}  // namespace ek
