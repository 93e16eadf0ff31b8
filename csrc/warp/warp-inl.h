// The rows of a warp, compiled once per instruction set. Included after one of common/simd_*-inl.h; nothing
// of the standard library may be used here (see platform.h).
//
// A row is done in blocks, and each block in two passes. The first turns displacements into offsets and
// weights, the second fetches and blends. In one pass the chain from displacement to address to image to
// result is so long that a processor cannot overlap it with that of the next lanes, which costs twice the
// time.
#pragma once

#include "warp/warp_math-inl.h"
#include "warp/warp_plan.h"

namespace ek {
namespace EK_ISA {

// One row of output voxels and what surrounds it.
struct Row {
  const float* image;  // voxel (z, y, 0) of channel 0
  const float* flow;   // voxel (z, y, 0) of component 0
  float* out;
  int64_t channels, voxels;
  float z, y, depth, height, width;
  int32_t z_stride, y_stride;
};

struct Taps {
  Tap z, y, x;
};

// How the corners of all lanes are fetched.
enum class Access : uint8_t {
  kRun,     // neighbours sample neighbours: ordinary loads
  kPairs,   // anything else: both corners of a line at once
  kSingle,  // lines of one voxel: the second corner is the first
  kMasked,  // some corner lies outside and counts as 0
};

constexpr int kBlock = 256;

// What the first pass hands to the second. Masked lanes use none but `access`.
struct Block {
  alignas(64) int32_t index[kBlock];                  // of the first corner, from the output voxel of lane 0
  alignas(64) float z[kBlock], y[kBlock], x[kBlock];  // weights
  Access access[kBlock / kLanes];
};

template <int kDims>
EK_INLINE void load_flow(const Row& row, int64_t x, int count, F& fz, F& fy, F& fx) {
  const float* at = row.flow + x;
  const auto next = [&]() __attribute__((always_inline)) {
    const F lanes = count == kLanes ? load(at) : load_first(at, count);
    at += row.voxels;
    return lanes;
  };
  fz = kDims == 3 ? next() : F(0.0f);
  fy = next();
  fx = next();
}

template <int kDims>
EK_INLINE I index_of(const Row& row, F z, F y, F x) {
  I index = to_int(y) * I(row.y_stride) + to_int(x) + int_iota();
  if constexpr (kDims == 3) index = to_int(z) * I(row.z_stride) + index;
  return index;
}

template <int kDims, Boundary kBoundary>
EK_INLINE Taps taps_of(const Row& row, int64_t x, int count) {
  F fz, fy, fx;
  load_flow<kDims>(row, x, count, fz, fy, fx);
  const auto tap = [](F f, F p, float n) __attribute__((always_inline)) {
    return kBoundary == Boundary::kZero ? linear_zero(f, p, n) : linear_edge(f, p, n);
  };
  return {tap(fz, F(row.z), row.depth), tap(fy, F(row.y), row.height),
          tap(fx, F(static_cast<float>(x)) + iota(), row.width)};
}

template <int kDims>
EK_INLINE bool all_inside(const Taps& taps) {
  M inside =
      both(both(taps.y.first_inside, taps.y.second_inside), both(taps.x.first_inside, taps.x.second_inside));
  if constexpr (kDims == 3) inside = both(inside, both(taps.z.first_inside, taps.z.second_inside));
  return all(inside);
}

// Along an axis of one voxel the second corner is the first, at weight 0 or NaN.
EK_INLINE int64_t y_step(const Row& row) { return row.height > 1.0f ? row.y_stride : 0; }
EK_INLINE int64_t z_step(const Row& row) { return row.depth > 1.0f ? row.z_stride : 0; }

// The lines of the image that lane 0 needs are on their way while the rest of the block is placed. Hardware
// does not foresee them where the displacement varies: this takes a sixth off the time of a smooth field with
// AVX2.
template <int kDims>
EK_INLINE void prefetch_lines(const Row& row, const float* corner) {
  __builtin_prefetch(corner);
  __builtin_prefetch(corner + y_step(row));
  if constexpr (kDims == 3) {
    __builtin_prefetch(corner + z_step(row));
    __builtin_prefetch(corner + z_step(row) + y_step(row));
  }
}

template <int kDims, Boundary kBoundary>
EK_INLINE void place(const Row& row, int64_t x, int count, int at, Block& block) {
  const Taps taps = taps_of<kDims, kBoundary>(row, x, count);
  const I index = index_of<kDims>(row, taps.z.offset, taps.y.offset, taps.x.offset);
  store(block.index + at, index);
  if constexpr (kDims == 3) store(block.z + at, taps.z.weight);
  store(block.y + at, taps.y.weight);
  store(block.x + at, taps.x.weight);
  Access access = consecutive(index) ? Access::kRun : Access::kPairs;
  if (row.width == 1.0f) access = Access::kSingle;
  if (kBoundary == Boundary::kZero && !all_inside<kDims>(taps)) access = Access::kMasked;
  block.access[at / kLanes] = access;
  if (access != Access::kMasked) prefetch_lines<kDims>(row, row.image + x + block.index[at]);
}

template <Access kAccess>
EK_INLINE F line(const float* image, const int32_t* index, F weight) {
  F first, second;
  if constexpr (kAccess == Access::kRun) {
    first = load(image + index[0]);
    second = load(image + index[0] + 1);
  } else if constexpr (kAccess == Access::kPairs) {
    gather_pairs(image, index, first, second);
  } else {
    first = second = gather(image, load(index));
  }
  return blend(first, second, weight);
}

template <int kDims, Access kAccess>
EK_INLINE F cell(const Row& row, const float* image, const Block& block, int at) {
  const int64_t dy = y_step(row), dz = z_step(row);
  const int32_t* index = block.index + at;
  const F wx = load(block.x + at), wy = load(block.y + at);
  const F near = blend(line<kAccess>(image, index, wx), line<kAccess>(image + dy, index, wx), wy);
  if constexpr (kDims == 2) return near;
  const F far = blend(line<kAccess>(image + dz, index, wx), line<kAccess>(image + dz + dy, index, wx), wy);
  return blend(near, far, load(block.z + at));
}

template <int kDims>
EK_INLINE F masked_cell(const Row& row, const float* image, int64_t x, int count) {
  const Taps taps = taps_of<kDims, Boundary::kZero>(row, x, count);
  const I index = index_of<kDims>(row, taps.z.offset, taps.y.offset, taps.x.offset);
  const auto masked_line = [&](const float* first, M mask) __attribute__((always_inline)) {
    return blend(gather(first, index, both(mask, taps.x.first_inside)),
                 gather(first + 1, index, both(mask, taps.x.second_inside)), taps.x.weight);
  };
  const auto plane = [&](const float* first, M near, M far) __attribute__((always_inline)) {
    return blend(masked_line(first, near), masked_line(first + row.y_stride, far), taps.y.weight);
  };
  const M near = taps.y.first_inside, far = taps.y.second_inside;
  if constexpr (kDims == 2) return plane(image, near, far);
  const M front = taps.z.first_inside, back = taps.z.second_inside;
  return blend(plane(image, both(front, near), both(front, far)),
               plane(image + row.z_stride, both(back, near), both(back, far)), taps.z.weight);
}

template <bool kAdd>
EK_INLINE void finish(float* out, const float* image, F value, int count) {
  if (count == kLanes) {
    if constexpr (kAdd) value = load(image) + value;
    store(out, value);
  } else {
    if constexpr (kAdd) value = load_first(image, count) + value;
    store_first(out, value, count);
  }
}

template <int kDims, Boundary kBoundary, bool kAdd>
EK_INLINE void fetch(const Row& row, int64_t x, int count, int at, int64_t channel, const Block& block) {
  const float* image = row.image + channel * row.voxels + x;
  const Access access = block.access[at / kLanes];
  F value;
  if (kBoundary == Boundary::kZero && access == Access::kMasked) {
    value = masked_cell<kDims>(row, image, x, count);
  } else if (access == Access::kRun) {
    value = cell<kDims, Access::kRun>(row, image, block, at);
  } else if (access == Access::kPairs) {
    value = cell<kDims, Access::kPairs>(row, image, block, at);
  } else {
    value = cell<kDims, Access::kSingle>(row, image, block, at);
  }
  finish<kAdd>(row.out + channel * row.voxels + x, image, value, count);
}

// Calls lanes(x, count) for every full vector of [begin, end), then for what remains.
template <class Lanes>
EK_INLINE void each_vector(int64_t begin, int64_t end, const Lanes& lanes) {
  int64_t x = begin;
  for (; x + kLanes <= end; x += kLanes) lanes(x, kLanes);
  if (x < end) lanes(x, static_cast<int>(end - x));
}

template <int kDims, Boundary kBoundary, bool kAdd>
EK_INLINE void linear_row(const Row& row, int64_t width) {
  Block block;
  for (int64_t begin = 0; begin < width; begin += kBlock) {
    const int64_t end = begin + kBlock < width ? begin + kBlock : width;
    each_vector(begin, end, [&](int64_t x, int count) __attribute__((always_inline)) {
      place<kDims, kBoundary>(row, x, count, static_cast<int>(x - begin), block);
    });
    for (int64_t channel = 0; channel < row.channels; ++channel) {
      each_vector(begin, end, [&](int64_t x, int count) __attribute__((always_inline)) {
        fetch<kDims, kBoundary, kAdd>(row, x, count, static_cast<int>(x - begin), channel, block);
      });
    }
  }
}

template <int kDims, Boundary kBoundary, bool kAdd>
EK_INLINE void nearest(const Row& row, int64_t x, int count) {
  constexpr bool kZero = kBoundary == Boundary::kZero;
  constexpr float kBeyond = kZero ? 1.0f : 0.0f;
  F fz, fy, fx;
  load_flow<kDims>(row, x, count, fz, fy, fx);
  M inside = greater_equal(F(0.0f), F(0.0f));
  M known = inside;
  const auto offset = [&](F f, F p, float n) __attribute__((always_inline)) {
    const F to_last = F(n - 1.0f) - p;
    const F nearest = nearest_offset(f, F(-kBeyond) - p, to_last + F(kBeyond));
    if constexpr (kZero) {
      inside = both(inside, both(greater_equal(nearest, F(0.0f) - p), greater_equal(to_last, nearest)));
    }
    known = both(known, greater_equal(max_(F(0.0f), f), F(0.0f)));  // false for NaN alone
    return nearest;
  };
  const F z = kDims == 3 ? offset(fz, F(row.z), row.depth) : F(0.0f);
  const F y = offset(fy, F(row.y), row.height);
  const F across = offset(fx, F(static_cast<float>(x)) + iota(), row.width);
  const I index = index_of<kDims>(row, z, y, across);
  for (int64_t channel = 0; channel < row.channels; ++channel) {
    const float* image = row.image + channel * row.voxels + x;
    const F sample = select(known, gather(image, index, inside), F(__builtin_nanf("")));
    finish<kAdd>(row.out + channel * row.voxels + x, image, sample, count);
  }
}

template <int kDims, int kOrder, Boundary kBoundary, bool kAdd>
void rows(const WarpPlan& plan, int64_t begin, int64_t end) {
  const Volume<const float>& image = plan.args.image;
  const int64_t plane = image.h * image.w, voxels = image.d * plane;
  Row row;
  row.channels = image.c;
  row.voxels = voxels;
  row.depth = static_cast<float>(image.d);
  row.height = static_cast<float>(image.h);
  row.width = static_cast<float>(image.w);
  row.y_stride = static_cast<int32_t>(image.w);
  row.z_stride = static_cast<int32_t>(plane);
  for (int64_t r = begin; r < end; ++r) {
    const int64_t n = r * image.w / voxels, within = r * image.w - n * voxels, z = within / plane;
    row.z = static_cast<float>(z);
    row.y = static_cast<float>((within - z * plane) / image.w);
    row.image = image.data + n * image.c * voxels + within;
    row.flow = plan.args.flow.data + n * kDims * voxels + within;
    row.out = plan.args.out.data + n * image.c * voxels + within;
    if constexpr (kOrder == 0) {
      each_vector(0, image.w, [&](int64_t x, int count) __attribute__((always_inline)) {
        nearest<kDims, kBoundary, kAdd>(row, x, count);
      });
    } else {
      linear_row<kDims, kBoundary, kAdd>(row, image.w);
    }
  }
}

template <int kDims, int kOrder>
void choose(const WarpPlan& plan, int64_t begin, int64_t end) {
  const bool zero = plan.args.boundary == Boundary::kZero, add = plan.args.add_image;
  if (zero && add) {
    rows<kDims, kOrder, Boundary::kZero, true>(plan, begin, end);
  } else if (zero) {
    rows<kDims, kOrder, Boundary::kZero, false>(plan, begin, end);
  } else if (add) {
    rows<kDims, kOrder, Boundary::kEdge, true>(plan, begin, end);
  } else {
    rows<kDims, kOrder, Boundary::kEdge, false>(plan, begin, end);
  }
}

void warp_tasks(const void* context, int64_t begin, int64_t end) {
  const WarpPlan& plan = *static_cast<const WarpPlan*>(context);
  begin *= plan.rows_per_task;
  end = end * plan.rows_per_task < plan.rows ? end * plan.rows_per_task : plan.rows;
  const bool volume = plan.args.dims == 3, linear = plan.args.order == 1;
  if (volume && linear) {
    choose<3, 1>(plan, begin, end);
  } else if (volume) {
    choose<3, 0>(plan, begin, end);
  } else if (linear) {
    choose<2, 1>(plan, begin, end);
  } else {
    choose<2, 0>(plan, begin, end);
  }
}

}  // namespace EK_ISA
}  // namespace ek
