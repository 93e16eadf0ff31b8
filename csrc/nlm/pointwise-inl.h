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
    return ((z + 2 * (o.z + 1)) % (o.z + 1) * rows + y + above) * pitch + origin;
  }
};

// Rows whose sum is asked for, as many as a patch has. kRadius is that of a patch, or 0 for any. Kernels have
// copies of their own: otherwise every store could change them.
template <int kRadius>
struct Rows {
  const float* row[kRadius ? 2 * kRadius + 1 : 2 * kMaxPatchRadius + 1];
  int count;

  EK_MEMBER F sum(int64_t x) const {
    F sum = load(row[0] + x);
    for (int k = 1; k < (kRadius ? 2 * kRadius + 1 : count); ++k) sum = sum + load(row[k] + x);
    return sum;
  }
  // Leaves the first out, and takes in another.
  EK_MEMBER void next(const float* other) {
    for (int k = 1; k < (kRadius ? 2 * kRadius + 1 : count); ++k) row[k - 1] = row[k];
    row[(kRadius ? 2 * kRadius + 1 : count) - 1] = other;
  }
};

template <int kRadius>
void add_rows(const Rows<kRadius> rows, float* to, int64_t begin, int64_t end) {
  for (int64_t x = begin; x < end; x += kLanes) store(to + x, rows.sum(x));
}

// The sums along x of the squared differences of a row.
template <int kRadius>
void sum_line(const float* here, const float* there, float* squared, int any_radius, float* to, int64_t begin,
              int64_t end) {
  const int radius = kRadius ? kRadius : any_radius;
  for (int64_t x = floor_lanes(begin - radius); x < end + radius; x += kLanes) {
    const F difference = load(there + x) - load(here + x);
    store(squared + x, difference * difference);
  }
  for (int64_t x = begin; x < end; x += kLanes) {
    F sum = load(squared + x - radius);
    for (int k = 1 - radius; k <= radius; ++k) sum = sum + load(squared + x + k);
    store(to + x, sum);
  }
}

// What happens to a row of pairs (p, p + o), or to the first one of a plane.
struct Pairs {
  const float *before, *here, *after;  // values of p - o, of p, and of p + o
  const float *scales, *scales_after;  // of p, and of p + o, where there is a map
  const float* weights_before;         // of p for p - o
  float* weights_after;                // of p + o for p
  float *differences, *weights;        // the sums of p

  EK_MEMBER Pairs down(int64_t step, int64_t x) const {
    return {before + step - x,       here + step,
            after + step + x,        scales + step,
            scales_after + step + x, weights_before + step - x,
            weights_after + step,    differences + step,
            weights + step};
  }
};

// Lanes [begin, end): those inside [first, last) are of the tile, the others matter to p + o only.
template <int kRadius, bool kMap>
void add_pairs(const Pairs row, const Rows<kRadius> distances, F scale, F bias, int64_t begin, int64_t first,
               int64_t last, int64_t end) {
  const auto weigh = [&](int64_t x) __attribute__((always_inline)) {
    const F sum = distances.sum(x);
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

// One offset of a tile.
template <int kRadius>
struct Sweep {
  const Pointwise& at;
  Offset o;
  F scale, bias;
  bool map;
  int radius, count;
  int64_t x_begin, x_end, y_begin, y_end;  // of p, where p or p + o is of the tile

  // Of the first row of a plane. What is outside of the tile is not used.
  EK_MEMBER Pairs plane_of_pairs(int64_t z) const {
    Pairs pairs;
    pairs.before = at.values + at.row(z - o.z, -o.y);
    pairs.here = at.values + at.row(z, 0);
    pairs.after = at.values + at.row(z + o.z, o.y);
    pairs.scales = at.scales + at.row(z, 0);
    pairs.scales_after = at.scales + at.row(z + o.z, o.y);
    pairs.weights_before = at.pairs + at.pair(o, z - o.z, -o.y);
    pairs.weights_after = at.pairs + at.pair(o, z, 0);
    pairs.differences = at.differences + at.sums(z, 0);
    pairs.weights = at.weights + at.sums(z, 0);
    return pairs;
  }

  EK_MEMBER void row_of_pairs(const Pairs& plane, int64_t z, int64_t y, const Rows<kRadius>& rows) const {
    const bool here = at.inside(z, y), there = at.inside(z + o.z, y + o.y);
    if (!here && !there) return;
    const int64_t w = at.tile.w;
    const int64_t begin = floor_lanes(there && (!here || o.x > 0) ? -o.x : 0);
    const int64_t end = there && (!here || o.x < 0) ? w - o.x : w;
    const int64_t first = here ? 0 : end, last = here ? w : 0;
    const Pairs pairs = plane.down(y * at.pitch, o.x);
    if (map) {
      add_pairs<kRadius, true>(pairs, rows, scale, bias, begin, first, last, end);
    } else {
      add_pairs<kRadius, false>(pairs, rows, scale, bias, begin, first, last, end);
    }
  }

  // Calls each(y, rows) for all rows of p of a plane, with the sums along x whose sums along y they need.
  template <class Each>
  EK_MEMBER void lines(int64_t z, const Each& each) const {
    const float *here = at.image + at.row(z, 0), *there = at.image + at.row(z + o.z, o.y) + o.x;
    Rows<kRadius> rows;
    rows.count = count;
    for (int k = 0; k < count; ++k) rows.row[k] = at.lines + k * at.pitch + at.origin;
    for (int64_t y = y_begin - radius; y < y_end + radius; ++y) {
      float* line = const_cast<float*>(rows.row[0]);
      sum_line<kRadius>(here + y * at.pitch, there + y * at.pitch, at.squared + at.origin, radius, line,
                        x_begin, x_end);
      rows.next(line);
      if (y >= y_begin + radius) each(y - radius, rows);
    }
  }

  EK_MEMBER void in_plane() const {
    const Pairs pairs = plane_of_pairs(0);
    lines(0, [&](int64_t y, const Rows<kRadius>& rows)
                 __attribute__((always_inline)) { row_of_pairs(pairs, 0, y, rows); });
  }

  EK_MEMBER void in_volume() const {
    const int64_t plane = (y_end - y_begin) * at.pitch;
    Rows<kRadius> planes;
    planes.count = count;
    for (int k = 0; k < count; ++k) planes.row[k] = at.planes + k * plane + at.origin;
    for (int64_t z = -o.z - radius; z < at.tile.d + radius; ++z) {
      float* sums = const_cast<float*>(planes.row[0]);
      planes.next(sums);
      const bool complete = z >= radius - o.z;
      const Pairs pairs = complete ? plane_of_pairs(z - radius) : Pairs{};
      lines(z, [&](int64_t y, const Rows<kRadius>& rows) __attribute__((always_inline)) {
        const int64_t row = (y - y_begin) * at.pitch;
        add_rows<kRadius>(rows, sums + row, x_begin, x_end);
        if (!complete) return;
        Rows<kRadius> distances = planes;
        for (int k = 0; k < count; ++k) distances.row[k] += row;
        row_of_pairs(pairs, z - radius, y, distances);
      });
    }
  }
};

// Adds all pairs of one offset. Sums along x are kept for as many rows as a patch has, those of planes for as
// many planes.
template <int kRadius>
void add_offset(const Pointwise& at, const Offset& o, F scale, F bias) {
  const NonLocalMeans& args = at.plan.args;
  const int radius = kRadius ? kRadius : args.patch_radius;
  const Sweep<kRadius> sweep = {at,
                                o,
                                scale,
                                bias,
                                has_map(at.plan),
                                radius,
                                2 * radius + 1,
                                o.x > 0 ? floor_lanes(-o.x) : 0,
                                at.tile.w + (o.x < 0 ? -o.x : 0),
                                o.y > 0 ? -o.y : 0,
                                at.tile.h + (o.y < 0 ? -o.y : 0)};
  if (args.dims == 3) {
    sweep.in_volume();
  } else {
    sweep.in_plane();
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
