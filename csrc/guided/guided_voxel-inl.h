// One voxel of a guided filter along an axis, as a thread of a device computes it. Included after
// common/simd_device-inl.h.
#pragma once

#include "common/box-inl.h"
#include "guided/guided_math-inl.h"
#include "guided/guided_plan.h"

namespace ek {
namespace EK_ISA {

template <class Sums>
struct GuidedVoxel {
  GuidedPass args;

  EK_MEMBER int64_t rows() const { return args.image.n * args.image.c * args.image.d * args.image.h; }
  EK_MEMBER int64_t items() const { return args.image.w; }
  EK_MEMBER void operator()(uint32_t row, uint32_t x) const {
    const Tensor& image = args.image;
    const int64_t y = row % image.h, z = row / image.h % image.d, c = row / image.h / image.d;
    const int64_t of_guide = args.guide.c == image.c ? c : c / image.c;
    const int64_t at = int64_t{row} * image.w + x;
    const auto read = [&](int64_t k) __attribute__((always_inline)) {
      const int64_t vz = args.axis == 0 ? voxel_at(z + k, image.d, args.boundary) : z;
      const int64_t vy = args.axis == 1 ? voxel_at(y + k, image.h, args.boundary) : y;
      const int64_t vx = args.axis == 2 ? voxel_at(x + k, image.w, args.boundary) : int64_t{x};
      const bool outside = vz < 0 || vy < 0 || vx < 0;
      const int64_t from = outside ? 0 : ((c * image.d + vz) * image.h + vy) * image.w + vx;
      Values<Sums::kInputs> values;
      for (int i = 0; i < Sums::kInputs; ++i) {
        if (!args.first) {
          values.v[i] = outside ? 0.0f : args.in[i][from];
        } else if (i % 2 == 1 || outside) {
          values.v[i] = 0.0f;
        } else {
          values.v[i] =
              read_voxel(i == 0 ? args.guide : image, i == 0 ? of_guide : c, vz, vy, vx, args.boundary);
        }
      }
      return values;
    };
    Sums sums(read(0));
    EK_NO_UNROLL
    for (int64_t k = 1; k <= args.reach; ++k) {
      sums.add(read(-k));
      sums.add(read(k));
    }
    const auto result = sums.finish(args.share);
    if (args.means && args.last) {
      const float guide = read_voxel(args.guide, of_guide, z, y, x, args.boundary);
      write_voxel(args.out, at, result.v[0] * guide + result.v[1]);
    } else if (args.last) {
      const Values<2> line = line_of(result, args.epsilon);
      for (int i = 0; i < 2; ++i) args.to[i][at] = line.v[i];
    } else {
      for (int i = 0; i < Sums::kInputs; ++i) args.to[i][at] = result.v[i];
    }
  }
};

// Calls run(voxel) with the one for the pass.
template <class Run>
void with_guided_voxel(const GuidedPass& args, const Run& run) {
  if (args.means) return run(GuidedVoxel<MeanSums>{args});
  if (args.guided) return run(GuidedVoxel<GuidedSums>{args});
  run(GuidedVoxel<OwnSums>{args});
}

}  // namespace EK_ISA
}  // namespace ek
