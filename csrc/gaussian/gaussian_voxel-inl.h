// One voxel of a Gaussian along an axis, as a thread of a device computes it. Included after
// common/simd_device-inl.h.
#pragma once

#include "common/box-inl.h"
#include "gaussian/gaussian_plan.h"

namespace ek {
namespace EK_ISA {

struct GaussianVoxel {
  AxisPass args;

  EK_MEMBER int64_t rows() const { return args.in.n * args.in.c * args.in.d * args.in.h; }
  EK_MEMBER int64_t items() const { return args.in.w; }
  EK_MEMBER void operator()(uint32_t row, uint32_t x) const {
    const Tensor& image = args.in;
    const int64_t y = row % image.h, z = row / image.h % image.d, c = row / image.h / image.d;
    const auto read = [&](int64_t k) __attribute__((always_inline)) {
      return read_voxel(image, c, args.axis == 0 ? z + k : z, args.axis == 1 ? y + k : y,
                        args.axis == 2 ? x + k : int64_t{x}, args.boundary);
    };
    float sum = read(0);
    const float twice = sum + sum;
    EK_NO_UNROLL
    for (int64_t k = 1; k <= args.reach; ++k) {
      sum = sum + ((read(-k) + read(k)) - twice) * args.weights[k - 1];
    }
    write_voxel(args.out, int64_t{row} * image.w + x, sum);
  }
};

}  // namespace EK_ISA
}  // namespace ek
