// The body of the adjoint of a warp, compiled once per instruction set. Included after one of
// common/simd_*-inl.h; nothing of the standard library may be used here (see platform.h).
//
// Every voxel of the output adds up its parts in the order of the voxels they come from: whether these are
// taken one by one or as runs of neighbours, the sums are the same to the bit.
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

// Weights of the corners of a block's cells: [line][end], lines in the order (z, y).
struct CellWeights {
  alignas(64) float of[4][2][kBlock];
};

template <int kDims>
EK_INLINE void weigh_cells(const Block& block, int count, CellWeights& weights) {
  each_vector(count, [&](int at, int) __attribute__((always_inline)) {
    const F wx = load(block.weight[2][0] + at), wy = load(block.weight[1][0] + at);
    const auto line = [&](int number, F weight) __attribute__((always_inline)) {
      store(weights.of[number][0] + at, weight * (F(1.0f) - wx));
      store(weights.of[number][1] + at, weight * wx);
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

  EK_MEMBER F vector(int at, int lanes) const { return values ? load_some(values + at, lanes) : F(1.0f); }
  EK_MEMBER float scalar(int at) const { return values ? values[at] : 1.0f; }
};

// Adds the parts of neighbours [begin, end), whose first corners on a line are neighbours too, from out on.
EK_INLINE void add_run(const Channel& channel, const float (&weight)[2][kBlock], int begin, int end,
                       float* out) {
  *out += channel.scalar(begin) * weight[0][begin];
  // The second corner of each is the first of the next, and comes first.
  each_vector(end - begin - 1, [&](int step, int lanes) __attribute__((always_inline)) {
    const int at = begin + step;
    float* to = out + step + 1;
    const F second = channel.vector(at, lanes) * load_some(weight[1] + at, lanes);
    const F first = channel.vector(at + 1, lanes) * load_some(weight[0] + at + 1, lanes);
    store_some(to, (load_some(to, lanes) + second) + first, lanes);
  });
  out[end - begin] += channel.scalar(end - 1) * weight[1][end - 1];
}

template <int kDims>
EK_INLINE void add_cell(const Slab& slab, const Channel& channel, const Block& block,
                        const CellWeights& weights, int i) {
  for (int corner = 0; corner < 1 << kDims; ++corner) {
    const int z = corner >> 2, y = corner >> 1 & 1, x = corner & 1;
    const int32_t oz = kDims == 3 ? block.offset[0][z][i] : 0, oy = block.offset[1][y][i],
                  ox = block.offset[2][x][i];
    const int64_t voxel = int64_t{oz} + oy + ox;
    if ((oz | oy | ox) >= 0 && slab.holds(voxel)) {
      channel.out[voxel] += channel.scalar(i) * weights.of[corner >> 1][x][i];
    }
  }
}

// Neighbours [begin, end) of a block that have to be treated alike.
struct Run {
  int begin, end;
  bool mapped;
};

// The next run: neighbours with neighbouring first corners, or one whose corners the boundary rule chose. It
// is empty at the end of the block. Voxels with a NaN displacement, and so a NaN weight, are in none.
EK_INLINE Run next_run(const Block& block, const CellWeights& weights, bool single, int begin, int count) {
  const float* known = weights.of[0][0];
  while (begin < count && known[begin] != known[begin]) ++begin;
  if (begin == count) return {count, count, false};
  const auto mapped = [&](int i) __attribute__((always_inline)) {
    return block.access[i / kLanes] == Access::kMapped;
  };
  int end = begin + 1;
  if (mapped(begin)) return {begin, end, true};
  if (single) return {begin, end, false};
  while (end < count && block.index[end] == block.index[end - 1] + 1 && known[end] == known[end] &&
         !mapped(end)) {
    ++end;
  }
  return {begin, end, false};
}

template <int kDims>
EK_INLINE void add_cells(const AdjointPlan& plan, const Slab& slab, const Channel& channel,
                         const Block& block, const CellWeights& weights, int count) {
  const bool single = plan.sample.axis[2].count == 1;
  const int64_t dy = step_along(plan.sample.axis[1]), dz = step_along(plan.sample.axis[0]);
  for (Run run = next_run(block, weights, single, 0, count); run.begin < run.end;
       run = next_run(block, weights, single, run.end, count)) {
    if (run.mapped) {
      add_cell<kDims>(slab, channel, block, weights, run.begin);
      continue;
    }
    for (int line = 0; line < 1 << (kDims - 1); ++line) {
      const int64_t voxel = block.index[run.begin] + (line >> 1) * dz + (line & 1) * dy;
      if (!slab.holds(voxel)) continue;
      float* out = channel.out + voxel;
      if (single) {
        *out += channel.scalar(run.begin) * weights.of[line][0][run.begin];
        *out += channel.scalar(run.begin) * weights.of[line][1][run.begin];
      } else {
        add_run(channel, weights.of[line], run.begin, run.end, out);
      }
    }
  }
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
  CellWeights weights;
  if (args.order == 1) weigh_cells<kDims>(block, count, weights);
  const auto add = [&](const Channel& channel) __attribute__((always_inline)) {
    if (args.order == 1) return add_cells<kDims>(plan, slab, channel, block, weights, count);
    if (args.order == 0) return add_nearest(slab, channel, block, count);
    add_cubic<kDims>(slab, channel, block, count);
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
