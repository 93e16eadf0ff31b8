// One new voxel of a filtered axis, as a thread of a device computes it. Included after
// common/simd_device-inl.h.
#pragma once

#include "filter/filter-inl.h"

namespace ek {
namespace EK_ISA {

// Items lie side by side in memory: neighbouring lines, or the voxels of a line where those are alone.
template <class In, class Out>
struct FilterVoxel {
  AxisFilter args;

  EK_MEMBER int64_t rows() const { return args.inner > 1 ? args.outer * args.out_size : args.outer; }
  EK_MEMBER int64_t items() const { return args.inner > 1 ? args.inner : args.out_size; }
  EK_MEMBER void operator()(uint32_t r, uint32_t item) const {
    const bool lines = args.inner > 1;
    const uint32_t size = static_cast<uint32_t>(args.out_size), outer = lines ? r / size : r;
    const uint32_t p = lines ? r - outer * size : item, x = lines ? item : 0;
    const In* in = static_cast<const In*>(args.in) + outer * args.in_size * args.inner + x;
    across<1>(args, p, in, static_cast<Out*>(args.out) + (outer * args.out_size + p) * args.inner + x, 1);
  }
};

template <class In, class Run>
void filter_narrow(const AxisFilter& args, const Run& run) {
  if (args.out_type == Type::kFloat32) return run(FilterVoxel<In, float>{args});
  run(FilterVoxel<In, In>{args});
}

// Calls run(voxel) with the one for the arguments.
template <class Run>
void with_filter_voxel(const AxisFilter& args, const Run& run) {
  if (args.in_type == Type::kFloat16) return filter_narrow<Half>(args, run);
  if (args.in_type == Type::kUint8) return filter_narrow<uint8_t>(args, run);
  if (args.in_type == Type::kInt16) return filter_narrow<int16_t>(args, run);
  if (args.out_type == Type::kFloat16) return run(FilterVoxel<float, Half>{args});
  if (args.out_type == Type::kUint8) return run(FilterVoxel<float, uint8_t>{args});
  if (args.out_type == Type::kInt16) return run(FilterVoxel<float, int16_t>{args});
  run(FilterVoxel<float, float>{args});
}

}  // namespace EK_ISA
}  // namespace ek
