// The body of the adjoint of a warp, compiled once per instruction set. Included after one of
// common/simd_*-inl.h; nothing of the standard library may be used here (see platform.h).
//
// Every voxel of the output adds up its parts in the order of the voxels they come from. The weights and
// the products are worked out in vectors; the sums are made one by one.
#pragma once

#include "adjoint/reach-inl.h"
#include "sample/fetch-inl.h"

namespace ek {
namespace EK_ISA {

// What a task may write to, as voxels of a channel.
struct Slab {
  int64_t n;
  int32_t first, voxels;  // of a channel, in a row
  bool covers;            // every part of the block at hand lands here

  EK_MEMBER bool holds(int64_t voxel) const { return covers || (voxel >= first && voxel < first + voxels); }
};

constexpr int kMaxCorners = 8;

// Weights of the corners of a block's cells, or values times these: [corner], in the order (z, y, x).
struct Corners {
  alignas(64) float of[kMaxCorners][kLine];
};

template <int kDims>
EK_INLINE void weigh_corners(const Block& block, int count, Corners& weights) {
  each_vector(count, [&](int at, int) __attribute__((always_inline)) {
    const F wx = load(block.weight[2][0] + at), wy = load(block.weight[1][0] + at);
    const auto line = [&](int number, F weight) __attribute__((always_inline)) {
      store(weights.of[2 * number] + at, weight * (F(1.0f) - wx));
      store(weights.of[2 * number + 1] + at, weight * wx);
    };
    if constexpr (kDims == 2) {
      line(0, F(1.0f) - wy);
      line(1, wy);
    } else {
      const F wz = load(block.weight[0][0] + at);
      line(0, (F(1.0f) - wz) * (F(1.0f) - wy));
      line(1, (F(1.0f) - wz) * wy);
      line(2, wz * (F(1.0f) - wy));
      line(3, wz * wy);
    }
  });
}

// One channel of what is pushed and where to. Without values it is the count, and each is 1.
struct Channel {
  const float* values;  // of the block's first voxel
  float* out;           // voxel 0

  EK_MEMBER float scalar(int at) const { return values ? values[at] : 1.0f; }
};

template <int kDims>
EK_INLINE void weigh_values(const Channel& channel, const Corners& weights, int count, Corners& parts) {
  each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
    const F value = channel.values ? load_some(channel.values + at, lanes) : F(1.0f);
    for (int corner = 0; corner < 1 << kDims; ++corner) {
      store(parts.of[corner] + at, value * load(weights.of[corner] + at));
    }
  });
}

// Adds the parts of one voxel to the corners that the boundary rule chose.
template <int kDims>
EK_INLINE void add_mapped(const Slab& slab, const Channel& channel, const Block& block, const Corners& parts,
                          int i) {
  for (int corner = 0; corner < 1 << kDims; ++corner) {
    const int z = corner >> 2, y = corner >> 1 & 1, x = corner & 1;
    const int32_t oz = kDims == 3 ? block.offset[0][z][i] : 0, oy = block.offset[1][y][i],
                  ox = block.offset[2][x][i];
    const int64_t voxel = int64_t{oz} + oy + ox;
    if ((oz | oy | ox) >= 0 && slab.holds(voxel)) channel.out[voxel] += parts.of[corner][i];
  }
}

// Adds the parts of one voxel to the corners of a cell inside the image. Lines of the cell that belong to
// another slab go to waste: this is faster than a branch that cannot be foreseen.
template <int kDims, bool kCovers>
EK_INLINE void add_cell(const Slab& slab, const Channel& channel, int64_t voxel, int64_t dz, int64_t dy,
                        int64_t dx, const Corners& parts, int i, float* waste) {
  for (int line = 0; line < 1 << (kDims - 1); ++line) {
    const int64_t first = voxel + (line >> 1) * dz + (line & 1) * dy;
    float* out = channel.out + first;
    if constexpr (!kCovers) out = first >= slab.first && first < slab.first + slab.voxels ? out : waste;
    out[0] += parts.of[2 * line][i];
    out[dx] += parts.of[2 * line + 1][i];
  }
}

template <int kDims, bool kCovers>
EK_INLINE void add_cells(const AdjointPlan& plan, const Slab& slab, const Channel& channel,
                         const Block& block, const Corners& parts, int count) {
  const int64_t dz = step_along(plan.sample.axis[0]), dy = step_along(plan.sample.axis[1]),
                dx = step_along(plan.sample.axis[2]);
  float waste[2];
  each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
    // A NaN displacement has NaN weights, which only the sum of all three is sure to have.
    F sum = load(block.weight[1][0] + at) + load(block.weight[2][0] + at);
    if constexpr (kDims == 3) sum = sum + load(block.weight[0][0] + at);
    const bool mapped = block.access[at / kLanes] == Access::kMapped;
    if (!mapped && all(greater_equal(sum, F(0.0f)))) {
      for (int i = at; i < at + lanes; ++i) {
        add_cell<kDims, kCovers>(slab, channel, block.index[i], dz, dy, dx, parts, i, waste);
      }
      return;
    }
    for (int i = at; i < at + lanes; ++i) {
      const float known =
          block.weight[1][0][i] + block.weight[2][0][i] + (kDims == 3 ? block.weight[0][0][i] : 0);
      if (known != known) continue;
      if (mapped) {
        add_mapped<kDims>(slab, channel, block, parts, i);
      } else {
        add_cell<kDims, kCovers>(slab, channel, block.index[i], dz, dy, dx, parts, i, waste);
      }
    }
  });
}

EK_INLINE void add_nearest(const Slab& slab, const Channel& channel, const Block& block, int count) {
  for (int i = 0; i < count; ++i) {
    const int32_t voxel = block.index[i];
    if (voxel >= 0 && slab.holds(voxel)) channel.out[voxel] += channel.scalar(i);
  }
}

template <int kDims>
EK_INLINE void add_cubic(const Slab& slab, const Channel& channel, const Block& block, int count) {
  const auto weight = [&](int axis, int tap, int i)
                          __attribute__((always_inline)) { return block.weight[axis][tap][i]; };
  for (int i = 0; i < count; ++i) {
    const float sum = (kDims == 3 ? weight(0, 0, i) : 0.0f) + weight(1, 0, i) + weight(2, 0, i);
    if (sum != sum) continue;  // a displacement is NaN
    const float value = channel.scalar(i);
    for (int line = 0; line < (kDims == 3 ? 16 : 4); ++line) {
      const int k = line >> 2, j = line & 3;
      const int32_t oz = kDims == 3 ? block.offset[0][k][i] : 0, oy = block.offset[1][j][i];
      // A slab is made of whole lines: any voxel tells for all.
      if ((oz | oy) < 0 || !slab.holds(int64_t{oz} + oy)) continue;
      const float part = value * (kDims == 3 ? weight(0, k, i) * weight(1, j, i) : weight(1, j, i));
      float* out = channel.out + oz + oy;
      for (int tap = 0; tap < 4; ++tap) {
        const int32_t ox = block.offset[2][tap][i];
        if (ox >= 0) out[ox] += part * weight(2, tap, i);
      }
    }
  }
}

template <int kDims>
EK_INLINE void add_block(const AdjointPlan& plan, const Slab& slab, const Row& row, int64_t x, int count,
                         Block& block) {
  const Adjoint& args = plan.args;
  const int64_t voxels = args.values.voxels();
  locate<kDims, Displacement<float, kDims>>(plan.sample, row, x, count, block);
  Corners weights, parts;
  if (args.order == 1) weigh_corners<kDims>(block, count, weights);
  const auto add = [&](const Channel& channel) __attribute__((always_inline)) {
    if (args.order == 0) return add_nearest(slab, channel, block, count);
    if (args.order == 3) return add_cubic<kDims>(slab, channel, block, count);
    weigh_values<kDims>(channel, weights, count, parts);
    if (slab.covers) {
      add_cells<kDims, true>(plan, slab, channel, block, parts, count);
    } else {
      add_cells<kDims, false>(plan, slab, channel, block, parts, count);
    }
  };
  for (int64_t c = row.n * args.values.c; c < (row.n + 1) * args.values.c; ++c) {
    add({args.values.as<const float>() + c * voxels + row.first + x, args.out.as<float>() + c * voxels});
  }
  if (args.counts.data) add({nullptr, args.counts.as<float>() + row.n * voxels});
}

EK_INLINE void clear(const Tensor& tensor, const Slab& slab) {
  for (int64_t c = slab.n * tensor.c; c < (slab.n + 1) * tensor.c; ++c) {
    float* out = tensor.as<float>() + c * tensor.voxels() + slab.first;
    for (int64_t i = 0; i < slab.voxels; ++i) out[i] = 0.0f;
  }
}

template <int kDims>
void fill_slab(const AdjointPlan& plan, int64_t task) {
  const Tensor& values = plan.args.values;
  const int64_t n = task / plan.slabs, stride = plan.sample.axis[plan.axis].stride;
  const int64_t from = (task - n * plan.slabs) * plan.planes, count = plan.sample.axis[plan.axis].count;
  const int64_t to = from + plan.planes < count ? from + plan.planes : count;
  Slab slab{n, static_cast<int32_t>(from * stride), static_cast<int32_t>((to - from) * stride), false};
  clear(plan.args.out, slab);
  if (plan.args.counts.data) clear(plan.args.counts, slab);
  Block block;
  const int64_t rows = values.d * values.h;
  for (int64_t r = 0; r < rows; ++r) {
    const int64_t z = r / values.h;
    const Row row{n, z, r - z * values.h, r * values.w};
    for (int64_t b = 0; b < plan.blocks; ++b) {
      const Reach reach = plan.args.reaches[(n * rows + r) * plan.blocks + b];
      if (reach.last < from || reach.first >= to || reach.first > reach.last) continue;
      slab.covers = reach.first >= from && reach.last < to;
      const int64_t x = b * kBlock;
      add_block<kDims>(plan, slab, row, x, static_cast<int>(values.w - x < kBlock ? values.w - x : kBlock),
                       block);
    }
  }
}

void adjoint_tasks(const void* context, int64_t begin, int64_t end) {
  const AdjointPlan& plan = *static_cast<const AdjointPlan*>(context);
  for (int64_t task = begin; task < end; ++task) {
    if (plan.args.dims == 3) {
      fill_slab<3>(plan, task);
    } else {
      fill_slab<2>(plan, task);
    }
  }
}

}  // namespace EK_ISA
}  // namespace ek
