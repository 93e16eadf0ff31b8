// What both ways to filter a tile have in common. Included after one of common/simd_*-inl.h.
#pragma once

#include "common/box-inl.h"
#include "nlm/nlm_math-inl.h"

namespace ek {
namespace EK_ISA {

struct Offset {
  int64_t z, y, x;
};

struct Tile {
  int64_t channel;  // counted through the batch
  int64_t z, y, x, d, h, w;
};

EK_INLINE Tile tile_of(const NlmPlan& plan, int64_t task) {
  const Tensor& image = plan.args.image;
  Tile tile;
  tile.x = task % plan.tiles_x * plan.w;
  tile.y = task / plan.tiles_x % plan.tiles_y * plan.h;
  tile.z = task / (plan.tiles_x * plan.tiles_y) % plan.tiles_z * plan.d;
  tile.channel = task / (plan.tiles_x * plan.tiles_y * plan.tiles_z);
  tile.d = image.d - tile.z < plan.d ? image.d - tile.z : plan.d;
  tile.h = image.h - tile.y < plan.h ? image.h - tile.y : plan.h;
  tile.w = image.w - tile.x < plan.w ? image.w - tile.x : plan.w;
  return tile;
}

// Where the row of a tile begins in an array with the grid of the image.
EK_INLINE int64_t row_at(const NlmPlan& plan, const Tile& tile, int64_t channel, int64_t z, int64_t y) {
  const Tensor& image = plan.args.image;
  return ((channel * image.d + tile.z + z) * image.h + tile.y + y) * image.w + tile.x;
}

EK_INLINE const uint8_t* mask_row(const NlmPlan& plan, const Tile& tile, int64_t z, int64_t y) {
  const Tensor& mask = plan.args.mask;
  if (!mask.data) return nullptr;
  return mask.as<const uint8_t>() + row_at(plan, tile, channel_of(mask, plan.args.image, tile.channel), z, y);
}

EK_INLINE bool has_map(const NlmPlan& plan) { return plan.args.sigma.voxels() > 1; }

// A tile's sigma where it has but one, or the first of the row otherwise.
EK_INLINE const float* sigma_row(const NlmPlan& plan, const Tile& tile, int64_t z, int64_t y) {
  const Tensor& sigma = plan.args.sigma;
  const int64_t channel = channel_of(sigma, plan.args.image, tile.channel);
  return sigma.as<const float>() + (has_map(plan) ? row_at(plan, tile, channel, z, y) : channel);
}

// Whether there is something to filter; otherwise the tile is copied.
inline bool wanted(const NlmPlan& plan, const Tile& tile) {
  if (!plan.args.mask.data) return true;
  for (int64_t z = 0; z < tile.d; ++z) {
    for (int64_t y = 0; y < tile.h; ++y) {
      const uint8_t* row = mask_row(plan, tile, z, y);
      for (int64_t x = 0; x < tile.w; ++x) {
        if (row[x]) return true;
      }
    }
  }
  return false;
}

inline void copy_tile(const NlmPlan& plan, const Tile& tile, float* row) {
  for (int64_t z = 0; z < tile.d; ++z) {
    for (int64_t y = 0; y < tile.h; ++y) {
      const Box box = {tile.z + z, tile.y + y, tile.x, 1, 1, tile.w};
      read_box(plan.args.image, tile.channel, box, plan.args.boundary, row, tile.w);
      write_row(plan.args.out, row_at(plan, tile, tile.channel, z, y), row, tile.w);
    }
  }
}

// Writes a row of a tile, given the image there and what is added to it, or to its square: `row` is
// overwritten.
inline void finish_row(const NlmPlan& plan, const Tile& tile, int64_t z, int64_t y, const float* image,
                       float* row) {
  const uint8_t* mask = mask_row(plan, tile, z, y);
  const float* sigmas = sigma_row(plan, tile, z, y);
  const bool rician = plan.args.rician, map = has_map(plan);
  for (int64_t x = 0; x < tile.w; x += kLanes) {
    const int lanes = tile.w - x < kLanes ? static_cast<int>(tile.w - x) : kLanes;
    const F u = load(image + x), sigma = map ? load_some(sigmas + x, lanes) : F(*sigmas);
    const F result = finished(rician, rician ? u * u : u, load(row + x), sigma);
    store(row + x, mask ? select(greater(load_some(mask + x, lanes), F(0.0f)), result, u) : result);
  }
  write_row(plan.args.out, row_at(plan, tile, tile.channel, z, y), row, tile.w);
}

}  // namespace EK_ISA
}  // namespace ek
