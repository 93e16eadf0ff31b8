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

  // Of all but the last.
  EK_MEMBER F sum_before(int64_t x) const {
    F sum = load(row[0] + x);
    for (int k = 1; k < (kRadius ? 2 * kRadius : count - 1); ++k) sum = sum + load(row[k] + x);
    return sum;
  }
  // Leaves the first out, and takes in another.
  EK_MEMBER void next(const float* other) {
    for (int k = 1; k < (kRadius ? 2 * kRadius + 1 : count); ++k) row[k - 1] = row[k];
    row[(kRadius ? 2 * kRadius + 1 : count) - 1] = other;
  }
};

// The squared differences of a row.
inline void square_line(const float* here, const float* there, float* to, int64_t begin, int64_t end) {
  for (int64_t x = begin; x < end; x += kLanes) {
    const F difference = load(there + x) - load(here + x);
    store(to + x, difference * difference);
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

// How far the sums of a row can be taken: along x alone, along y as well, or to distances, in a plane or a
// volume.
enum class Stage : uint8_t { kLine, kPlane, kPairsOfPlane, kPairsOfVolume };

// What is known of a row, the newest of the rows along y and of the planes being those to write.
template <int kRadius>
struct Sums {
  const float* squared;
  int radius;
  Rows<kRadius> lines, planes;
  float *line, *plane;
};

// Lanes [begin, end): pairs of those inside [first, last) are of the tile, the others matter to p + o only.
template <int kRadius, Stage kStage, bool kMap>
void add_row(const Sums<kRadius> sums, const Pairs pairs, F scale, F bias, int64_t begin, int64_t first,
             int64_t last, int64_t end) {
  const auto weigh = [&](int64_t x) __attribute__((always_inline)) {
    const int radius = kRadius ? kRadius : sums.radius;
    F sum = load(sums.squared + x - radius);
    for (int k = 1 - radius; k <= radius; ++k) sum = sum + load(sums.squared + x + k);
    store(sums.line + x, sum);
    if constexpr (kStage == Stage::kLine) return sum;
    sum = sums.lines.sum_before(x) + sum;
    if constexpr (kStage != Stage::kPairsOfPlane) store(sums.plane + x, sum);
    if constexpr (kStage == Stage::kPlane) return sum;
    if constexpr (kStage == Stage::kPairsOfVolume) sum = sums.planes.sum_before(x) + sum;
    const F weight = weight_of(sum, kMap ? load(pairs.scales + x) : scale, bias);
    store(pairs.weights_after + x, kMap ? weight_of(sum, load(pairs.scales_after + x), bias) : weight);
    return weight;
  };
  int64_t x = begin;
  for (; x < first; x += kLanes) weigh(x);
  if constexpr (kStage == Stage::kPairsOfPlane || kStage == Stage::kPairsOfVolume) {
    for (; x < last; x += kLanes) {
      const F after = weigh(x), before = load(pairs.weights_before + x), value = load(pairs.here + x);
      const F differences = load(pairs.differences + x) + before * (load(pairs.before + x) - value);
      store(pairs.differences + x, differences + after * (load(pairs.after + x) - value));
      store(pairs.weights + x, load(pairs.weights + x) + before + after);
    }
    for (; x < end; x += kLanes) weigh(x);
  }
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

  template <Stage kStage>
  EK_MEMBER void row(const Sums<kRadius>& sums, const Pairs& plane, int64_t z, int64_t y) const {
    const bool here = at.inside(z, y), there = at.inside(z + o.z, y + o.y);
    if (!here && !there) {
      constexpr Stage kRest = kStage == Stage::kPairsOfPlane ? Stage::kLine : Stage::kPlane;
      return add_row<kRadius, kRest, false>(sums, {}, scale, bias, x_begin, x_end, x_end, x_end);
    }
    const int64_t first = here ? 0 : x_end, last = here ? at.tile.w : x_end;
    const Pairs pairs = plane.down(y * at.pitch, o.x);
    if (map) {
      add_row<kRadius, kStage, true>(sums, pairs, scale, bias, x_begin, first, last, x_end);
    } else {
      add_row<kRadius, kStage, false>(sums, pairs, scale, bias, x_begin, first, last, x_end);
    }
  }

  // A plane, from the squared differences on. Of a volume, its sums along y are kept; `complete` says that
  // those of all planes around plane z are there.
  EK_MEMBER void plane(int64_t newest, int64_t z, bool volume, bool complete, Sums<kRadius>& sums) const {
    const float *here = at.image + at.row(newest, 0), *there = at.image + at.row(newest + o.z, o.y) + o.x;
    const Pairs pairs = complete ? plane_of_pairs(z) : Pairs{};
    for (int64_t y = y_begin - radius; y < y_end + radius; ++y) {
      square_line(here + y * at.pitch, there + y * at.pitch, at.squared + at.origin,
                  floor_lanes(x_begin - radius), x_end + radius);
      sums.line = const_cast<float*>(sums.lines.row[0]);
      sums.lines.next(sums.line);
      if (y < y_begin + radius) {
        add_row<kRadius, Stage::kLine, false>(sums, {}, scale, bias, x_begin, x_end, x_end, x_end);
        continue;
      }
      if (!volume) {
        row<Stage::kPairsOfPlane>(sums, pairs, z, y - radius);
        continue;
      }
      if (complete) {
        row<Stage::kPairsOfVolume>(sums, pairs, z, y - radius);
      } else {
        add_row<kRadius, Stage::kPlane, false>(sums, {}, scale, bias, x_begin, x_end, x_end, x_end);
      }
      sums.plane += at.pitch;
      for (int k = 0; k < count; ++k) sums.planes.row[k] += at.pitch;
    }
  }

  EK_MEMBER void operator()() const {
    const bool volume = at.plan.args.dims == 3;
    const int64_t plane_size = volume ? (y_end - y_begin) * at.pitch : 0;
    Sums<kRadius> sums;
    sums.squared = at.squared + at.origin;
    sums.radius = radius;
    sums.plane = nullptr;
    sums.lines.count = sums.planes.count = count;
    Rows<kRadius> planes = sums.planes;
    for (int k = 0; k < count; ++k) {
      sums.lines.row[k] = at.lines + k * at.pitch + at.origin;
      sums.planes.row[k] = planes.row[k] = at.planes + k * plane_size + at.origin;
    }
    if (!volume) return plane(0, 0, false, true, sums);
    for (int64_t z = -o.z - radius; z < at.tile.d + radius; ++z) {
      sums.plane = const_cast<float*>(planes.row[0]);
      planes.next(sums.plane);
      sums.planes = planes;
      plane(z, z - radius, true, z >= radius - o.z, sums);
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
  sweep();
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
