// One voxel of non-local means, as a thread of a device computes it: from the definition, in the order of the
// processor. Included after common/simd_device-inl.h.
#pragma once

#include "common/box-inl.h"
#include "nlm/nlm_math-inl.h"

namespace ek {
namespace EK_ISA {

struct Place {
  int64_t z, y, x;
};
EK_HD EK_INLINE Place operator+(Place a, Place b) { return {a.z + b.z, a.y + b.y, a.x + b.x}; }
EK_HD EK_INLINE Place operator-(Place a, Place b) { return {a.z - b.z, a.y - b.y, a.x - b.x}; }

// Rows are those of the image.
template <bool kBlockwise>
struct NlmVoxel {
  NonLocalMeans args;
  float scale, bias;

  EK_MEMBER int64_t rows() const { return args.image.n * args.image.c * args.image.d * args.image.h; }
  EK_MEMBER int64_t items() const { return args.image.w; }

  EK_MEMBER float at(int64_t channel, Place p) const {
    return read_voxel(args.image, channel, p.z, p.y, p.x, args.boundary);
  }
  EK_MEMBER float value(float u) const { return args.rician ? u * u : u; }
  EK_MEMBER float sigma(int64_t channel, Place p) const {
    const int64_t of = channel_of(args.sigma, args.image, channel);
    if (args.sigma.voxels() == 1) return args.sigma.template as<const float>()[of];
    return read_voxel(args.sigma, of, p.z, p.y, p.x, map_boundary(args.boundary));
  }

  // Between the patches around p and q.
  EK_MEMBER float distance(int64_t channel, Place p, Place q) const {
    const int r = args.patch_radius, r_z = args.dims == 3 ? r : 0;
    float volume = 0.0f;
    EK_NO_UNROLL
    for (int z = -r_z; z <= r_z; ++z) {
      float plane = 0.0f;
      EK_NO_UNROLL
      for (int y = -r; y <= r; ++y) {
        float line = 0.0f;
        EK_NO_UNROLL
        for (int x = -r; x <= r; ++x) {
          const float there = at(channel, q + Place{z, y, x}),
                      difference = there - at(channel, p + Place{z, y, x});
          const float squared = difference * difference;
          line = line + (args.floor > 0.0f ? squared * (1.0f / max_(args.floor, there)) : squared);
        }
        plane = plane + line;
      }
      volume = volume + plane;
    }
    return volume;
  }

  // What is added to p, or to its square.
  EK_MEMBER float pointwise(int64_t channel, Place p) const {
    const int64_t reach = args.search_radius, reach_z = args.dims == 3 ? reach : 0;
    const float here = value(at(channel, p)), factor = weight_scale(scale, sigma(channel, p));
    float differences = 0.0f, weights = 1.0f;
    EK_NO_UNROLL
    for (int64_t z = 0; z <= reach_z; ++z) {
      EK_NO_UNROLL
      for (int64_t y = z > 0 ? -reach : 0; y <= reach; ++y) {
        EK_NO_UNROLL
        for (int64_t x = z > 0 || y > 0 ? -reach : 1; x <= reach; ++x) {
          EK_NO_UNROLL
          for (int side = -1; side <= 1; side += 2) {
            const Place q = p + Place{side * z, side * y, side * x};
            // Of the pair that the processor looks at: its patches are compared in this direction.
            const float weight = weight_of(distance(channel, p, q), factor, bias);
            differences = differences + weight * (value(at(channel, q)) - here);
            weights = weights + weight;
          }
        }
      }
    }
    return differences / weights;
  }

  // The same for a voxel of the block around c.
  EK_MEMBER float of_block(int64_t channel, Place p, Place c) const {
    const int64_t reach = args.search_radius, reach_z = args.dims == 3 ? reach : 0;
    const float here = value(at(channel, p)), factor = weight_scale(scale, sigma(channel, c));
    float differences = 0.0f, weights = 1.0f;
    EK_NO_UNROLL
    for (int64_t z = -reach_z; z <= reach_z; ++z) {
      EK_NO_UNROLL
      for (int64_t y = -reach; y <= reach; ++y) {
        EK_NO_UNROLL
        for (int64_t x = -reach; x <= reach; ++x) {
          if (z == 0 && y == 0 && x == 0) continue;
          const Place o = {z, y, x};
          const float weight = weight_of(distance(channel, c, c + o), factor, bias);
          differences = differences + weight * (value(at(channel, p + o)) - here);
          weights = weights + weight;
        }
      }
    }
    return differences / weights;
  }

  EK_MEMBER float blockwise(int64_t channel, Place p) const {
    const int64_t step = args.patch_radius + 1;
    const Holding in_z = args.dims == 3 ? holding(p.z, step) : Holding{0, 0};
    const Holding in_y = holding(p.y, step), in_x = holding(p.x, step);
    float sum = 0.0f;
    int count = 0;
    EK_NO_UNROLL
    for (int64_t z = in_z.first; z <= in_z.last; ++z) {
      EK_NO_UNROLL
      for (int64_t y = in_y.first; y <= in_y.last; ++y) {
        EK_NO_UNROLL
        for (int64_t x = in_x.first; x <= in_x.last; ++x, ++count) {
          sum = sum + of_block(channel, p, {z * step, y * step, x * step});
        }
      }
    }
    return sum * (1.0f / static_cast<float>(count));
  }

  EK_MEMBER void operator()(uint32_t r, uint32_t x) const {
    const Tensor& image = args.image;
    const uint32_t h = static_cast<uint32_t>(image.h), layers = static_cast<uint32_t>(image.d) * h;
    const uint32_t channel = r / layers, within = r - channel * layers, z = within / h;
    const Place p = {z, within - z * h, x};
    const int64_t to = static_cast<int64_t>(r) * image.w + x;
    const float u = at(channel, p);
    if (args.mask.data) {
      const int64_t voxel = static_cast<int64_t>(within) * image.w + x;
      const int64_t of = channel_of(args.mask, image, channel);
      if (!args.mask.template as<const uint8_t>()[of * image.voxels() + voxel])
        return write_voxel(args.out, to, u);
    }
    const float added = kBlockwise ? blockwise(channel, p) : pointwise(channel, p);
    write_voxel(args.out, to, finished(args.rician, value(u), added, sigma(channel, p)));
  }
};

// Calls run(voxel) with the one for the arguments.
template <class Run>
void with_nlm_voxel(const NlmPlan& plan, const Run& run) {
  if (plan.args.blockwise) return run(NlmVoxel<true>{plan.args, plan.scale, plan.bias});
  run(NlmVoxel<false>{plan.args, plan.scale, plan.bias});
}

}  // namespace EK_ISA
}  // namespace ek
