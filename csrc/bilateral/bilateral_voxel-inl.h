// One voxel of a bilateral filter, as a thread of a device computes it. Included after
// common/simd_device-inl.h.
#pragma once

#include "bilateral/bilateral_math-inl.h"
#include "bilateral/bilateral_plan.h"
#include "common/box-inl.h"

namespace ek {
namespace EK_ISA {

template <bool kGuided>
struct BilateralVoxel {
  Bilateral args;

  EK_MEMBER int64_t rows() const { return args.image.n * args.image.c * args.image.d * args.image.h; }
  EK_MEMBER int64_t items() const { return args.image.w; }
  EK_MEMBER void operator()(uint32_t row, uint32_t x) const {
    const Tensor &image = args.image, &guide = args.guide;
    const int64_t y = row % image.h, z = row / image.h % image.d, c = row / image.h / image.d;
    const int64_t of_guide = guide.c == image.c ? c : c / image.c;
    const float centre = read_voxel(image, c, z, y, x, args.boundary);
    const float guide_centre = kGuided ? read_voxel(guide, of_guide, z, y, x, args.boundary) : 0.0f;
    float differences = 0.0f, weights = 1.0f + (guide_centre - guide_centre);
    const auto add = [&](int64_t k, int sign) __attribute__((always_inline)) {
      const int32_t* o = args.offsets + 3 * k;
      const int64_t vz = z + sign * o[0], vy = y + sign * o[1], vx = int64_t{x} + sign * o[2];
      const float difference = read_voxel(image, c, vz, vy, vx, args.boundary) - centre;
      float weight;
      if constexpr (kGuided) {
        weight =
            guide_weight(read_voxel(guide, of_guide, vz, vy, vx, args.boundary) - guide_centre, args.decay);
      } else {
        weight = range_weight(difference, args.decay);
      }
      weight = args.weights[k] * weight;
      weights = weights + weight;
      differences = differences + weight * difference;
    };
    const auto leaves_row = [&](int64_t k) __attribute__((always_inline)) {
      return k < args.pairs && (args.offsets[3 * k] != 0 || args.offsets[3 * k + 1] != 0);
    };
    int64_t k = 0;
    EK_NO_UNROLL
    for (; leaves_row(k); ++k) add(k, -1);
    EK_NO_UNROLL
    for (k = 0; leaves_row(k); ++k) add(k, 1);
    EK_NO_UNROLL
    for (; k < args.pairs; ++k) {
      add(k, 1);
      add(k, -1);
    }
    write_voxel(args.out, int64_t{row} * image.w + x, filtered(centre, differences, weights));
  }
};

// Calls run(voxel) with the one for the arguments.
template <class Run>
void with_bilateral_voxel(const Bilateral& args, const Run& run) {
  if (args.guide.data) return run(BilateralVoxel<true>{args});
  run(BilateralVoxel<false>{args});
}

}  // namespace EK_ISA
}  // namespace ek
