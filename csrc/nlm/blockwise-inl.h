// A weight for every block and neighbour. Included after one of common/simd_*-inl.h.
//
// Lanes are blocks that follow each other along x, their centres kStep voxels apart: rows are stored in as
// many phases, so that the same voxel of neighbouring blocks lies side by side. The distance of two blocks is
// a sum along x, of those along y, of those along z, in this order.
#pragma once

#include "nlm/tile-inl.h"

namespace ek {
namespace EK_ISA {

// Rows are those of a tile and of what is around it. Block 0 has its centre in voxel 0.
struct Blockwise {
  const NlmPlan& plan;
  Tile tile;
  int radius, radius_z, step;  // of a block; of centres
  int64_t reach_z, reach;      // of neighbours of voxels of blocks
  int64_t n_z, n_y, n_x;       // blocks
  int64_t origin, pitch;       // in a row of a phase: where block 0 is, and the floats of it
  float *image, *values, *inverses, *scales;
  float *differences, *squared, *lines, *planes;  // of one offset: between voxels; squared; their sums
  float *weights, *current, *sums;                // of blocks, and for one offset; of all voxels of blocks

  EK_MEMBER int64_t voxels() const { return (2 * radius_z + 1) * (2 * radius + 1) * (2 * radius + 1); }
  // Of voxel (z, y, x) of block 0 of a row, x from -reach on.
  EK_MEMBER int64_t at(int64_t z, int64_t y, int64_t x) const {
    const int64_t row = (z + reach_z) * (step * (n_y - 1) + 1 + 2 * reach) + y + reach;
    return row * step * pitch + phase(x);
  }
  EK_MEMBER int64_t phase(int64_t x) const {
    const int64_t whole = (x + step * origin) / step;  // no division of negative numbers
    return (x + step * origin - whole * step) * pitch + whole;
  }
  // From a voxel with the phase of a centre to one k next to it, k from -radius to radius.
  EK_MEMBER int64_t shift(int k) const { return k >= 0 ? k * pitch : (k + step) * pitch - 1; }
  // The same in the differences of one offset.
  EK_MEMBER int64_t difference(int64_t z, int64_t y, int64_t x) const {
    const int64_t row = (z + radius_z) * (step * (n_y - 1) + 1 + 2 * radius) + y + radius;
    return row * step * pitch + phase(x);
  }
};

// Loops over lanes are given copies of what they need, which no store can change.

// Between two rows of a phase: the differences of values, and the squared ones of the image, divided by the
// noise that speckle has there.
template <bool kPearson>
void compare_phases(const float* p, const float* q, const float* inverses, const float* values_p,
                    const float* values_q, float* squared, float* differences, int64_t count) {
  const bool same = p == values_p;
  for (int64_t i = -kLanes; i < count; i += kLanes) {
    const F difference = load(q + i) - load(p + i);
    const F square = difference * difference;
    store(squared + i, kPearson ? square * load(inverses + i) : square);
    store(differences + i, same ? difference : load(values_q + i) - load(values_p + i));
  }
}

// Between a row and what is an offset away, summed along x.
EK_INLINE void compare_rows(const Blockwise& b, const Offset& o, int64_t z, int64_t y) {
  for (int x = 0; x < b.step; ++x) {
    const int64_t p = b.at(z, y, x), q = b.at(z + o.z, y + o.y, x + o.x);
    float *squared = b.squared + b.phase(x), *differences = b.differences + b.difference(z, y, x);
    if (b.inverses) {
      compare_phases<true>(b.image + p, b.image + q, b.inverses + q, b.values + p, b.values + q, squared,
                           differences, b.n_x);
    } else {
      compare_phases<false>(b.image + p, b.image + q, nullptr, b.values + p, b.values + q, squared,
                            differences, b.n_x);
    }
  }
  float* line = b.lines + (y + b.radius) * b.pitch;
  const float* rows[2 * kMaxPatchRadius + 1];
  for (int k = -b.radius; k <= b.radius; ++k) rows[k + b.radius] = b.squared + b.phase(0) + b.shift(k);
  const int64_t count = b.n_x, last = 2 * b.radius;
  for (int64_t i = 0; i < count; i += kLanes) {
    F sum = load(rows[0] + i);
    for (int k = 1; k <= last; ++k) sum = sum + load(rows[k] + i);
    store(line + i, sum);
  }
}

// Adds what one neighbour gives to voxels of blocks that lie in a row. kRadius is that of a block, or 0 for
// any.
template <int kRadius>
void add_to_row(const float* weights, const float* differences, float* sums, int64_t pitch, int any_radius,
                int64_t count) {
  const int radius = kRadius ? kRadius : any_radius;
  for (int64_t i = 0; i < count; i += kLanes) {
    const F weight = load(weights + i);
    for (int k = 0; k <= 2 * radius; ++k) {
      // See Blockwise::shift().
      const int64_t from = k >= radius ? (k - radius) * pitch : (k + 1) * pitch - 1;
      float* to = sums + k * pitch + i;
      store(to, load(to) + weight * load(differences + from + i));
    }
  }
}

// Adds what one neighbour gives to all voxels of the blocks of a row.
template <int kRadius>
void add_to_blocks(const Blockwise& b, int64_t c_z, int64_t c_y, F scale, F bias) {
  const int64_t row = c_z * b.n_y + c_y, size = 2 * b.radius + 1, count = b.n_x, plane = b.n_y * b.pitch;
  const float *distances = b.planes + (c_z * b.step * b.n_y + c_y) * b.pitch, *scales = b.scales;
  const int planes = 2 * b.radius_z;
  float *weights = b.weights + row * b.pitch, *current = b.current;
  if (scales) scales += row * b.pitch;
  for (int64_t i = 0; i < count; i += kLanes) {
    F distance = load(distances + i);
    for (int k = 1; k <= planes; ++k) distance = distance + load(distances + k * plane + i);
    const F weight = weight_of(distance, scales ? load(scales + i) : scale, bias);
    store(current + i, weight);
    store(weights + i, load(weights + i) + weight);
  }
  float* sums = b.sums + row * b.voxels() * b.pitch;
  for (int z = -b.radius_z; z <= b.radius_z; ++z) {
    for (int y = -b.radius; y <= b.radius; ++y, sums += size * b.pitch) {
      const float* differences = b.differences + b.difference(c_z * b.step + z, c_y * b.step + y, 0);
      add_to_row<kRadius>(current, differences, sums, b.pitch, b.radius, count);
    }
  }
}

inline void sum_lines(const float* lines, float* to, int64_t pitch, int count, int64_t blocks) {
  for (int64_t i = 0; i < blocks; i += kLanes) {
    F sum = load(lines + i);
    for (int k = 1; k < count; ++k) sum = sum + load(lines + k * pitch + i);
    store(to + i, sum);
  }
}

inline void add_neighbour(const Blockwise& b, const Offset& o, F scale, F bias) {
  const int64_t end_z = b.step * (b.n_z - 1) + b.radius_z, end_y = b.step * (b.n_y - 1) + b.radius;
  for (int64_t z = -b.radius_z; z <= end_z; ++z) {
    for (int64_t y = -b.radius; y <= end_y; ++y) compare_rows(b, o, z, y);
    for (int64_t c = 0; c < b.n_y; ++c) {
      float* to = b.planes + ((z + b.radius_z) * b.n_y + c) * b.pitch;
      sum_lines(b.lines + c * b.step * b.pitch, to, b.pitch, 2 * b.radius + 1, b.n_x);
    }
  }
  for (int64_t z = 0; z < b.n_z; ++z) {
    for (int64_t y = 0; y < b.n_y; ++y) {
      if (b.radius == 1) {
        add_to_blocks<1>(b, z, y, scale, bias);
      } else if (b.radius == 2) {
        add_to_blocks<2>(b, z, y, scale, bias);
      } else {
        add_to_blocks<0>(b, z, y, scale, bias);
      }
    }
  }
}

// One row of the image or of a map in phases. `row` is overwritten.
EK_INLINE void read_phases(const Blockwise& b, const Tensor& from, int64_t channel, Boundary boundary,
                           int64_t z, int64_t y, float* row, float* to) {
  const int64_t first = -b.step * b.origin, count = b.step * b.pitch;
  const Box box = {b.tile.z + z, b.tile.y + y, b.tile.x + first, 1, 1, count};
  read_box(from, channel, box, boundary, row, count);
  for (int phase = 0; phase < b.step; ++phase) {
    for (int64_t i = 0; i < b.pitch; ++i) to[phase * b.pitch + i] = row[i * b.step + phase];
  }
}

inline void begin_blocks(const Blockwise& b) {
  const NonLocalMeans& args = b.plan.args;
  const int64_t end_z = b.step * (b.n_z - 1) + b.reach_z, end_y = b.step * (b.n_y - 1) + b.reach;
  for (int64_t z = -b.reach_z; z <= end_z; ++z) {
    for (int64_t y = -b.reach; y <= end_y; ++y) {
      const int64_t at = b.at(z, y, -b.step * b.origin);
      read_phases(b, args.image, b.tile.channel, args.boundary, z, y, b.differences, b.image + at);
      for (int64_t i = 0; i < b.step * b.pitch; i += kLanes) {
        const F u = load(b.image + at + i);
        if (args.rician) store(b.values + at + i, u * u);
        if (b.inverses) store(b.inverses + at + i, F(1.0f) / max_(F(args.floor), u));
      }
    }
  }
  const int64_t channel = channel_of(args.sigma, args.image, b.tile.channel), rows = b.n_z * b.n_y;
  for (int64_t row = 0; b.scales && row < rows; ++row) {
    const int64_t z = row / b.n_y * b.step, y = row % b.n_y * b.step;
    read_phases(b, args.sigma, channel, map_boundary(args.boundary), z, y, b.differences, b.squared);
    for (int64_t i = 0; i < b.n_x; i += kLanes) {
      store(b.scales + row * b.pitch + i, weight_scale(F(b.plan.scale), load(b.squared + b.origin + i)));
    }
  }
  for (int64_t i = 0; i < rows * b.pitch; i += kLanes) store(b.weights + i, F(1.0f));
  for (int64_t i = 0; i < rows * b.voxels() * b.pitch; i += kLanes) store(b.sums + i, F(0.0f));
}

// The mean of what the blocks that hold a voxel say.
EK_INLINE float mean_of_blocks(const Blockwise& b, int64_t z, int64_t y, int64_t x) {
  const Holding in_z = b.plan.args.dims == 3 ? holding(z, b.step) : Holding{0, 0};
  const Holding in_y = holding(y, b.step), in_x = holding(x, b.step);
  const int size = 2 * b.radius + 1;
  float sum = 0.0f;
  int count = 0;
  for (int64_t c_z = in_z.first; c_z <= in_z.last; ++c_z) {
    for (int64_t c_y = in_y.first; c_y <= in_y.last; ++c_y) {
      for (int64_t c_x = in_x.first; c_x <= in_x.last; ++c_x, ++count) {
        const int64_t k_z = z - c_z * b.step + b.radius_z, k_y = y - c_y * b.step + b.radius;
        const int64_t k = (k_z * size + k_y) * size + x - c_x * b.step + b.radius;
        sum = sum + b.sums[((c_z * b.n_y + c_y) * b.voxels() + k) * b.pitch + c_x];
      }
    }
  }
  return sum * (1.0f / static_cast<float>(count));
}

inline void finish_blocks(const Blockwise& b, float* row) {
  for (int64_t block = 0; block < b.n_z * b.n_y; ++block) {
    for (int64_t k = 0; k < b.voxels(); ++k) {
      float* sums = b.sums + (block * b.voxels() + k) * b.pitch;
      for (int64_t i = 0; i < b.n_x; i += kLanes) {
        store(sums + i, load(sums + i) / load(b.weights + block * b.pitch + i));
      }
    }
  }
  float* image = b.differences;
  for (int64_t z = 0; z < b.tile.d; ++z) {
    for (int64_t y = 0; y < b.tile.h; ++y) {
      const Box box = {b.tile.z + z, b.tile.y + y, b.tile.x, 1, 1, b.tile.w};
      read_box(b.plan.args.image, b.tile.channel, box, b.plan.args.boundary, image, b.tile.w);
      for (int64_t x = 0; x < b.tile.w; ++x) row[x] = mean_of_blocks(b, z, y, x);
      finish_row(b.plan, b.tile, z, y, image, row);
    }
  }
}

void blockwise_tile(const NlmPlan& plan, const Tile& tile, float* memory) {
  const NonLocalMeans& args = plan.args;
  const BlockwiseLayout& layout = plan.blockwise;
  const int radius = args.patch_radius, step = radius + 1;
  const bool volume = args.dims == 3;
  const int64_t search = args.search_radius, search_z = volume ? search : 0, reach = radius + search;
  const auto blocks = [&](int64_t voxels)
                          __attribute__((always_inline)) { return (voxels + step - 2) / step + 1; };
  Blockwise b = {plan,
                 tile,
                 radius,
                 volume ? radius : 0,
                 step,
                 volume ? reach : 0,
                 reach,
                 volume ? blocks(tile.d) : 1,
                 blocks(tile.h),
                 blocks(tile.w),
                 layout.origin,
                 layout.pitch,
                 memory + layout.image,
                 memory + (args.rician ? layout.squares : layout.image),
                 args.floor > 0.0f ? memory + layout.inverses : nullptr,
                 has_map(plan) ? memory + layout.scales : nullptr,
                 memory + layout.differences,
                 memory + layout.squared,
                 memory + layout.lines,
                 memory + layout.planes,
                 memory + layout.weights,
                 memory + layout.current,
                 memory + layout.sums};
  begin_blocks(b);
  const F scale = weight_scale(F(plan.scale), F(*sigma_row(plan, tile, 0, 0))), bias(plan.bias);
  for (int64_t z = -search_z; z <= search_z; ++z) {
    for (int64_t y = -search; y <= search; ++y) {
      for (int64_t x = -search; x <= search; ++x) {
        if (z != 0 || y != 0 || x != 0) add_neighbour(b, {z, y, x}, scale, bias);
      }
    }
  }
  finish_blocks(b, b.squared);
}

}  // namespace EK_ISA
}  // namespace ek
