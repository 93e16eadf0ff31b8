// A weight for every voxel and neighbour. Included after one of common/simd_*-inl.h.
//
// The distance between two patches is the same seen from either, so half of the offsets are enough: what is
// found for (p, p + o) is kept until p + o is reached. What is added at a voxel is, for every offset, first p
// - o and then p + o; offsets go up by z, then y, then x.
#pragma once

#include "nlm/tile-inl.h"

namespace ek {
namespace EK_ISA {

// The largest multiple of kLanes that is not above: rows are read from where they are aligned.
EK_INLINE int64_t floor_lanes(int64_t x) {
  return x >= 0 ? x / kLanes * kLanes : -((kLanes - 1 - x) / kLanes * kLanes);
}

struct Offset {
  int64_t z, y, x;
};

// Rows below have one pitch; voxel x of a tile is `origin + x` of all.
struct Pointwise {
  const NlmPlan& plan;
  Tile tile;
  int64_t reach_z, reach, origin, pitch;  // of neighbours and their patches
  float* image;
  float* values;                 // what is averaged: the image, or its squares
  float* scales;                 // of weights where there is a map
  float *differences, *weights;  // the sums over neighbours
  float *squared, *lines, *planes, *pairs;

  EK_MEMBER int64_t row(int64_t z, int64_t y) const {
    return ((z + reach_z) * (tile.h + 2 * reach) + y + reach) * pitch + origin;
  }
  EK_MEMBER bool inside(int64_t z, int64_t y) const { return z >= 0 && z < tile.d && y >= 0 && y < tile.h; }
  EK_MEMBER int64_t sums(int64_t z, int64_t y) const { return (z * tile.h + y) * pitch + origin; }
  // Weights are kept until the row of p + o is reached.
  EK_MEMBER int64_t pair(const Offset& o, int64_t z, int64_t y) const {
    const int64_t reach_y = o.y > 0 ? o.y : -o.y, rows = tile.h + reach_y, above = o.y > 0 ? o.y : 0;
    return ((z + 2 * o.z) % (o.z + 1) * rows + y + above) * pitch + origin;
  }
};

// kRadius is that of a patch, or 0 for any.
template <int kRadius>
EK_INLINE F sum_of(const float* const* rows, int count, int64_t x) {
  F sum = load(rows[0] + x);
  for (int k = 1; k < (kRadius ? 2 * kRadius + 1 : count); ++k) sum = sum + load(rows[k] + x);
  return sum;
}

template <int kRadius>
void add_rows(const float* const* rows, int count, float* to, int64_t begin, int64_t end) {
  for (int64_t x = begin; x < end; x += kLanes) store(to + x, sum_of<kRadius>(rows, count, x));
}

// What happens to a row of pairs (p, p + o).
struct Pairs {
  const float* distances[2 * kMaxPatchRadius + 1];  // rows whose sum it is
  int rows;
  const float *before, *here, *after;  // values of p - o, of p, and of p + o
  const float *scales, *scales_after;  // of p, and of p + o, where there is a map
  const float* weights_before;         // of p for p - o
  float* weights_after;                // of p + o for p
  float *differences, *weights;        // the sums of p
};

// Lanes [begin, end): those inside [first, last) are of the tile, the others matter to p + o only.
template <int kRadius, bool kMap>
void add_pairs(const Pairs& row, F scale, F bias, int64_t begin, int64_t first, int64_t last, int64_t end) {
  const auto weigh = [&](int64_t x) __attribute__((always_inline)) {
    const F sum = sum_of<kRadius>(row.distances, row.rows, x);
    const F weight = weight_of(sum, kMap ? load(row.scales + x) : scale, bias);
    store(row.weights_after + x, kMap ? weight_of(sum, load(row.scales_after + x), bias) : weight);
    return weight;
  };
  int64_t x = begin;
  for (; x < first; x += kLanes) weigh(x);
  for (; x < last; x += kLanes) {
    const F after = weigh(x), before = load(row.weights_before + x), value = load(row.here + x);
    const F differences = load(row.differences + x) + before * (load(row.before + x) - value);
    store(row.differences + x, differences + after * (load(row.after + x) - value));
    store(row.weights + x, load(row.weights + x) + before + after);
  }
  for (; x < end; x += kLanes) weigh(x);
}

template <int kRadius>
void add_row_of_pairs(const Pointwise& at, const Offset& o, int64_t z, int64_t y, Pairs& pairs, F scale,
                      F bias) {
  const bool here = at.inside(z, y), there = at.inside(z + o.z, y + o.y);
  if (!here && !there) return;
  pairs.before = at.values + at.row(z - o.z, y - o.y) - o.x;
  pairs.here = at.values + at.row(z, y);
  pairs.after = at.values + at.row(z + o.z, y + o.y) + o.x;
  pairs.scales = at.scales + at.row(z, y);
  pairs.scales_after = at.scales + at.row(z + o.z, y + o.y) + o.x;
  pairs.weights_after = at.pairs + at.pair(o, z, y);
  pairs.weights_before = at.pairs + at.pair(o, z - o.z, y - o.y) - o.x;
  const int64_t w = at.tile.w, sums = here ? at.sums(z, y) : 0;
  pairs.differences = at.differences + sums, pairs.weights = at.weights + sums;
  const int64_t begin = floor_lanes(there && (!here || o.x > 0) ? -o.x : 0);
  const int64_t end = there && (!here || o.x < 0) ? w - o.x : w;
  const int64_t first = here ? 0 : end, last = here ? w : 0;
  if (has_map(at.plan)) {
    add_pairs<kRadius, true>(pairs, scale, bias, begin, first, last, end);
  } else {
    add_pairs<kRadius, false>(pairs, scale, bias, begin, first, last, end);
  }
}

// The sums along x of the squared differences of a row.
template <int kRadius>
void sum_line(const Pointwise& at, const Offset& o, int64_t z, int64_t y, int radius, int64_t begin,
              int64_t end, float* to) {
  const float *here = at.image + at.row(z, y), *there = at.image + at.row(z + o.z, y + o.y) + o.x;
  float* squared = at.squared + at.origin;
  for (int64_t x = floor_lanes(begin - radius); x < end + radius; x += kLanes) {
    const F difference = load(there + x) - load(here + x);
    store(squared + x, difference * difference);
  }
  const float* rows[2 * kMaxPatchRadius + 1];
  for (int k = 0; k <= 2 * radius; ++k) rows[k] = squared + k - radius;
  add_rows<kRadius>(rows, 2 * radius + 1, to, begin, end);
}

// Adds all pairs of one offset. Sums along x are kept for as many rows as a patch has, those of planes for as
// many planes.
template <int kRadius>
void add_offset(const Pointwise& at, const Offset& o, F scale, F bias) {
  const NonLocalMeans& args = at.plan.args;
  const int radius = kRadius ? kRadius : args.patch_radius, count = 2 * radius + 1;
  const bool volume = args.dims == 3;
  const int radius_z = volume ? radius : 0;
  const int64_t x_begin = o.x > 0 ? floor_lanes(-o.x) : 0, x_end = at.tile.w + (o.x < 0 ? -o.x : 0);
  const int64_t y_begin = o.y > 0 ? -o.y : 0, y_end = at.tile.h + (o.y < 0 ? -o.y : 0);
  const int64_t plane = (y_end - y_begin) * at.pitch;
  Pairs pairs;
  pairs.rows = count;
  for (int64_t z = -o.z - radius_z; z < at.tile.d + radius_z; ++z) {
    float* sums = at.planes + (z + o.z + radius_z) % count * plane + at.origin;
    for (int64_t y = y_begin - radius; y < y_end + radius; ++y) {
      const int64_t line = y - y_begin + radius;
      sum_line<kRadius>(at, o, z, y, radius, x_begin, x_end, at.lines + line % count * at.pitch + at.origin);
      if (line < 2 * radius) continue;
      const float* rows[2 * kMaxPatchRadius + 1];
      for (int k = 0; k < count; ++k) {
        rows[k] = at.lines + (line + k + 1) % count * at.pitch + at.origin;
      }
      const int64_t middle = y - radius, row = (middle - y_begin) * at.pitch;
      if (!volume) {
        for (int k = 0; k < count; ++k) pairs.distances[k] = rows[k];
        add_row_of_pairs<kRadius>(at, o, z, middle, pairs, scale, bias);
        continue;
      }
      add_rows<kRadius>(rows, count, sums + row, x_begin, x_end);
      const int64_t layer = z + o.z + radius_z;
      if (layer < 2 * radius) continue;
      for (int k = 0; k < count; ++k) {
        pairs.distances[k] = at.planes + (layer + k + 1) % count * plane + row + at.origin;
      }
      add_row_of_pairs<kRadius>(at, o, z - radius, middle, pairs, scale, bias);
    }
  }
}

template <int kRadius>
void add_offsets(const Pointwise& at, F scale, F bias) {
  const int64_t reach = at.plan.args.search_radius, reach_z = at.plan.args.dims == 3 ? reach : 0;
  Offset o;
  for (o.z = 0; o.z <= reach_z; ++o.z) {
    for (o.y = o.z > 0 ? -reach : 0; o.y <= reach; ++o.y) {
      for (o.x = o.z > 0 || o.y > 0 ? -reach : 1; o.x <= reach; ++o.x) {
        add_offset<kRadius>(at, o, scale, bias);
      }
    }
  }
}

// Reads a tile and what is around it, and clears the sums: every voxel is a neighbour of itself.
inline void begin_tile(const Pointwise& at) {
  const NonLocalMeans& args = at.plan.args;
  const Tile& tile = at.tile;
  const Box box = {tile.z - at.reach_z,     tile.y - at.reach,     tile.x - at.origin,
                   tile.d + 2 * at.reach_z, tile.h + 2 * at.reach, tile.w + at.origin + at.reach};
  const int64_t size = box.d * box.h * at.pitch;
  read_box(args.image, tile.channel, box, args.boundary, at.image, at.pitch);
  if (args.rician) {
    for (int64_t i = 0; i < size; i += kLanes) {
      const F u = load(at.image + i);
      store(at.values + i, u * u);
    }
  }
  if (has_map(at.plan)) {
    read_box(args.sigma, channel_of(args.sigma, args.image, tile.channel), box, map_boundary(args.boundary),
             at.scales, at.pitch);
    for (int64_t i = 0; i < size; i += kLanes) {
      store(at.scales + i, weight_scale(F(at.plan.scale), load(at.scales + i)));
    }
  }
  for (int64_t i = 0; i < tile.d * tile.h * at.pitch; i += kLanes) {
    store(at.differences + i, F(0.0f));
    store(at.weights + i, F(1.0f));
  }
}

void pointwise_tile(const NlmPlan& plan, const Tile& tile, float* memory) {
  const NonLocalMeans& args = plan.args;
  const PointwiseLayout& layout = plan.pointwise;
  const int64_t reach = args.search_radius + args.patch_radius;
  const Pointwise at = {plan,
                        tile,
                        args.dims == 3 ? reach : 0,
                        reach,
                        layout.origin,
                        layout.pitch,
                        memory + layout.image,
                        memory + (args.rician ? layout.squares : layout.image),
                        memory + layout.scales,
                        memory + layout.differences,
                        memory + layout.weights,
                        memory + layout.squared,
                        memory + layout.lines,
                        memory + layout.planes,
                        memory + layout.pairs};
  begin_tile(at);
  const F scale = weight_scale(F(plan.scale), F(*sigma_row(plan, tile, 0, 0))), bias(plan.bias);
  switch (args.patch_radius) {
    case 1:
      add_offsets<1>(at, scale, bias);
      break;
    case 2:
      add_offsets<2>(at, scale, bias);
      break;
    case 3:
      add_offsets<3>(at, scale, bias);
      break;
    default:
      add_offsets<0>(at, scale, bias);
  }
  for (int64_t z = 0; z < tile.d; ++z) {
    for (int64_t y = 0; y < tile.h; ++y) {
      const float *differences = at.differences + at.sums(z, y), *weights = at.weights + at.sums(z, y);
      for (int64_t x = 0; x < tile.w; x += kLanes) {
        store(at.squared + x, load(differences + x) / load(weights + x));
      }
      finish_row(plan, tile, z, y, at.image + at.row(z, y), at.squared);
    }
  }
}

}  // namespace EK_ISA
}  // namespace ek
