// A bilateral filter, compiled once per instruction set. Included after one of common/simd_*-inl.h; nothing
// of the standard library may be used here (see platform.h).
#pragma once

#include "bilateral/bilateral_math-inl.h"
#include "bilateral/bilateral_plan.h"
#include "common/box-inl.h"

namespace ek {
namespace EK_ISA {

// The parts of a worker's memory. Voxel 0 of a row is at a multiple of a cache line, save in a box where it
// is only the block's first one.
struct Scratch {
  float *image, *guide;          // the block's first voxel, with all that surrounds it
  float *differences, *weights;  // sums of the block's voxels
  float *product, *weight;       // of the pairs of a row
};

EK_INLINE Scratch scratch_of(const BilateralPlan& plan, char* memory) {
  const auto next = [&](int64_t bytes) __attribute__((always_inline)) {
    float* part = reinterpret_cast<float*>(memory);
    memory += bytes;
    return part;
  };
  Scratch scratch;
  scratch.image = next(plan.box_bytes) + plan.margin;
  scratch.guide = plan.args.guide.data ? next(plan.box_bytes) + plan.margin : nullptr;
  scratch.differences = next(plan.sums_bytes);
  scratch.weights = next(plan.sums_bytes);
  scratch.product = next(plan.row_bytes) + plan.margin;
  scratch.weight = next(plan.row_bytes) + plan.margin;
  return scratch;
}

// The pairs of voxels of a row with those an offset away.
struct Pairs {
  const float *image, *guide;  // of the row's first voxel
  int64_t offset;              // in elements
  float spatial, decay;
  float *product, *weight;
};

// The weights of the pairs of voxels x in [begin, end), and their products with the differences. With kAdd
// they are added to the sums of those voxels.
template <bool kGuided, bool kAdd>
EK_INLINE void weigh(const Pairs pairs, int64_t begin, int64_t end, float* differences, float* weights) {
  const float *near = pairs.image, *far = near + pairs.offset;
  const float *guide_near = pairs.guide, *guide_far = guide_near + (kGuided ? pairs.offset : 0);
  const F spatial(pairs.spatial), decay(pairs.decay);
  float *to_weight = pairs.weight, *to_product = pairs.product;
  for (int64_t x = begin; x < end; x += kLanes) {
    const F difference = load(far + x) - load(near + x);
    F weight;
    if constexpr (kGuided) {
      weight = guide_weight(load(guide_far + x) - load(guide_near + x), decay);
    } else {
      weight = range_weight(difference, decay);
    }
    weight = spatial * weight;
    const F product = weight * difference;
    store(to_weight + x, weight);
    store(to_product + x, product);
    if constexpr (kAdd) {
      store(weights + x, load(weights + x) + weight);
      store(differences + x, load(differences + x) + product);
    }
  }
}

// Adds what was weighed to the sums of the pairs' second voxels.
EK_INLINE void add_second(const Pairs pairs, int64_t dx, int64_t w, float* differences, float* weights) {
  const float *weight = pairs.weight - dx, *product = pairs.product - dx;
  for (int64_t x = 0; x < w; x += kLanes) {
    store(weights + x, load(weights + x) + load(weight + x));
    store(differences + x, load(differences + x) - load(product + x));
  }
}

// The first multiple of the lanes that is not less.
EK_INLINE int64_t whole_vectors(int64_t count) { return (count + kLanes - 1) / kLanes * kLanes; }

// A block of voxels, and where its rows are in memory.
struct Block {
  Box box;
  int64_t reach_z, reach_y, pitch, sums_pitch;

  EK_MEMBER bool has(int64_t z, int64_t y) const { return z >= 0 && z < box.d && y >= 0 && y < box.h; }
  EK_MEMBER int64_t row(int64_t z, int64_t y) const {
    return ((z + reach_z) * (box.h + 2 * reach_y) + y + reach_y) * pitch;
  }
  EK_MEMBER int64_t sums(int64_t z, int64_t y) const { return (z * box.h + y) * sums_pitch; }
};

// The sums of no voxel but the middle one.
template <bool kGuided>
EK_INLINE void begin_sums(const Block& block, const Scratch& scratch) {
  for (int64_t z = 0; z < block.box.d; ++z) {
    for (int64_t y = 0; y < block.box.h; ++y) {
      const int64_t to = block.sums(z, y);
      for (int64_t x = 0; x < block.box.w; x += kLanes) {
        F one(1.0f);
        if constexpr (kGuided) {
          const F guide = load(scratch.guide + block.row(z, y) + x);
          one = one + (guide - guide);
        }
        store(scratch.weights + to + x, one);
        store(scratch.differences + to + x, F(0.0f));
      }
    }
  }
}

// Adds pair k of a row's voxels to the sums of both.
template <bool kGuided>
EK_INLINE void add_pairs(const Bilateral& args, const Block& block, const Scratch& scratch, int64_t z,
                         int64_t y, int64_t k) {
  const int64_t dz = args.offsets[3 * k], dy = args.offsets[3 * k + 1], dx = args.offsets[3 * k + 2];
  const bool first = block.has(z, y), second = block.has(z + dz, y + dy);
  if (!first && !second) return;
  const int64_t row = block.row(z, y), w = block.box.w;
  Pairs pairs{scratch.image + row, nullptr,    block.row(z + dz, y + dy) - row + dx,
              args.weights[k],     args.decay, scratch.product,
              scratch.weight};
  if (kGuided) pairs.guide = scratch.guide + row;
  const int64_t before = dx > 0 ? -whole_vectors(dx) : 0, after = dx < 0 ? w - dx : 0;
  if (first) {
    const int64_t to = block.sums(z, y);
    if (second) weigh<kGuided, false>(pairs, before, 0, nullptr, nullptr);
    weigh<kGuided, true>(pairs, 0, w, scratch.differences + to, scratch.weights + to);
    if (second) weigh<kGuided, false>(pairs, whole_vectors(w), after, nullptr, nullptr);
  } else {
    weigh<kGuided, false>(pairs, before, after ? after : w - dx, nullptr, nullptr);
  }
  if (second) {
    const int64_t to = block.sums(z + dz, y + dy);
    add_second(pairs, dx, w, scratch.differences + to, scratch.weights + to);
  }
}

EK_INLINE void finish_sums(const Tensor& out, const Block& block, int64_t c, const Scratch& scratch) {
  const Box& box = block.box;
  for (int64_t z = 0; z < box.d; ++z) {
    for (int64_t y = 0; y < box.h; ++y) {
      const int64_t sums = block.sums(z, y);
      float* row = scratch.differences + sums;
      for (int64_t x = 0; x < box.w; x += kLanes) {
        const F centre = load(scratch.image + block.row(z, y) + x);
        store(row + x, filtered(centre, load(row + x), load(scratch.weights + sums + x)));
      }
      write_row(out, ((c * out.d + box.z + z) * out.h + box.y + y) * out.w + box.x, row, box.w);
    }
  }
}

template <bool kGuided>
void filter_block(const BilateralPlan& plan, const Box& box, int64_t c, const Scratch& scratch) {
  const Bilateral& args = plan.args;
  const int64_t rz = args.reach[0], ry = args.reach[1], rx = args.reach[2];
  const Box around{box.z - rz, box.y - ry, box.x - rx, box.d + 2 * rz, box.h + 2 * ry, box.w + 2 * rx};
  read_box(args.image, c, around, args.boundary, scratch.image - rx, plan.pitch);
  if (kGuided) {
    const int64_t of_guide = args.guide.c == args.image.c ? c : c / args.image.c;
    read_box(args.guide, of_guide, around, args.boundary, scratch.guide - rx, plan.pitch);
  }
  const Block block{box, rz, ry, plan.pitch, plan.sums_pitch};
  begin_sums<kGuided>(block, scratch);
  for (int64_t z = -rz; z < box.d; ++z) {
    for (int64_t y = -ry; y < box.h + ry; ++y) {
      for (int64_t k = 0; k < args.pairs; ++k) add_pairs<kGuided>(args, block, scratch, z, y, k);
    }
  }
  finish_sums(args.out, block, c, scratch);
}

void bilateral_workers(const void* context, int64_t begin, int64_t end) {
  const BilateralPlan& plan = *static_cast<const BilateralPlan*>(context);
  const Tensor& image = plan.args.image;
  const auto part = [](int64_t at, int64_t size, int64_t most) {
    return size - at < most ? size - at : most;
  };
  take_tasks(plan.workers, begin, end, [&](int64_t task, char* memory) {
    Box block;
    block.x = task % plan.blocks[2] * plan.block[2];
    task /= plan.blocks[2];
    block.y = task % plan.blocks[1] * plan.block[1];
    task /= plan.blocks[1];
    block.z = task % plan.blocks[0] * plan.block[0];
    block.d = part(block.z, image.d, plan.block[0]);
    block.h = part(block.y, image.h, plan.block[1]);
    block.w = part(block.x, image.w, plan.block[2]);
    const auto filter = plan.args.guide.data ? filter_block<true> : filter_block<false>;
    filter(plan, block, task / plan.blocks[0], scratch_of(plan, memory));
  });
}

}  // namespace EK_ISA
}  // namespace ek
