// Rows of medians, compiled once per instruction set. Included after one of common/simd_*-inl.h; nothing of
// the standard library may be used here (see platform.h).
//
// Lanes are neighbours along x. What windows share is sorted once: voxels above each other in z, then the
// columns of a window, then as many columns together as are on one side of its centre. The lists on both
// sides and the column between give the median. Values that are equal have the same bits, as -0 is made 0 and
// NaNs are kept apart: no order of comparisons shows in the result.
#pragma once

#include "common/box-inl.h"
#include "median/median_plan.h"
#include "median/networks-inl.h"

namespace ek {
namespace EK_ISA {

template <int kDims, int kRadius>
struct MedianWindow {
  static constexpr int kSide = 2 * kRadius + 1, kDepth = kDims == 3 ? kSide : 1, kColumn = kSide * kDepth,
                       kFlank = kRadius * kColumn, kMiddle = (kSide * kColumn + 1) / 2;
  using Depth = Merge<kDepth, 1, 0, kDepth>;
  using Column = Merge<kSide, kDepth, 0, kColumn>;
  using Flank = Merge<kRadius, kColumn, 0, kFlank>;
  using Flanks = Merge<2, kFlank, kMiddle - kColumn - 1, kMiddle>;
};

// Parts of a worker's memory, each some rows of kMedianPitch.
template <class Window>
struct MedianRows {
  float* read;     // kDepth rows as they are in the image
  float* out;      // the result, then a scratch row
  float* sorted;   // for each of kSide rows along y, kDepth sorted voxels of each column; in any order
  float* columns;  // kColumn sorted voxels of each column
  float* flanks;   // kFlank sorted voxels of each column and those to its right

  EK_MEMBER explicit MedianRows(void* memory) : read(static_cast<float*>(memory)) {
    out = read + Window::kDepth * kMedianPitch;
    sorted = out + 2 * kMedianPitch;
    columns = sorted + Window::kColumn * kMedianPitch;
    flanks = columns + Window::kColumn * kMedianPitch;
  }
};

template <class Net, int kBegin, int kEnd>
EK_INLINE void store_ranks(const F* v, float* to) {
  if constexpr (!kStraight) {
    for (int i = kBegin; i < kEnd; ++i) store(to + i * kMedianPitch, v[Net::network.rank[i]]);
  } else if constexpr (kEnd - kBegin > 1) {
    constexpr int middle = (kBegin + kEnd) / 2;
    store_ranks<Net, kBegin, middle>(v, to);
    store_ranks<Net, middle, kEnd>(v, to);
  } else {
    constexpr int wire = Net::network.rank[kBegin];
    store(to + kBegin * kMedianPitch, v[wire]);
  }
}

// Sorts, at each voxel along x, the values of kLists sorted lists, which lie `list_step` apart.
template <class Net, int kLists, int kSize>
EK_INLINE void merge_rows(const float* from, int64_t list_step, float* to, int64_t width) {
  for (int64_t x = 0; x < width; x += kLanes) {
    F v[Net::kWires];
    for (int list = 0; list < kLists; ++list) {
      for (int i = 0; i < kSize; ++i) {
        v[list * kSize + i] = load(from + list * list_step + i * kMedianPitch + x);
      }
    }
    run<Net>(v);
    store_ranks<Net, 0, Net::kWires>(v, to + x);
  }
}

template <class Window, int kRadius>
EK_INLINE void median_row(const float* columns, const float* flanks, float* out, int64_t width) {
  using Net = typename Window::Flanks;
  for (int64_t x = 0; x < width; x += kLanes) {
    F v[Net::kWires];
    for (int i = 0; i < Window::kFlank; ++i) {
      v[i] = load(flanks + i * kMedianPitch + x);
      v[Window::kFlank + i] = load(flanks + i * kMedianPitch + x + kRadius + 1);
    }
    run<Net>(v);
    const auto centre = [&](int i) __attribute__((always_inline)) {
      return load(columns + i * kMedianPitch + x + kRadius);
    };
    store(out + x, pick_rank<Net, Window::kMiddle, 0, Window::kColumn + 1>(v, centre));
  }
}

// What a NaN in the image does to a row of results that has it in its windows.
template <class Window>
void spread_nans(const MedianPlan& plan, int64_t channel, const Box& box, float* out, float* scratch) {
  const int64_t width = box.w - Window::kSide + 1;
  for (int64_t z = 0; z < box.d; ++z) {
    for (int64_t y = 0; y < Window::kSide; ++y) {
      const Box row{box.z + z, box.y + y, box.x, 1, 1, box.w};
      read_box(plan.args.image, channel, row, plan.args.boundary, scratch, kMedianPitch);
      for (int64_t x = 0; x < box.w; ++x) {
        if (scratch[x] == scratch[x]) continue;
        const int64_t begin = x < Window::kSide ? 0 : x - Window::kSide + 1, end = x < width ? x + 1 : width;
        for (int64_t at = begin; at < end; ++at) out[at] = __builtin_nanf("");
      }
    }
  }
}

// Sorts along z the rows as they were read. Returns how many values are no number, which count as 0.
template <class Window, bool kFloats>
EK_INLINE int sort_depth(const float* read, int64_t step, float* to, int64_t width) {
  using Net = typename Window::Depth;
  int nans = 0;
  for (int64_t x = 0; x < width; x += kLanes) {
    F v[Net::kWires];
    for (int i = 0; i < Net::kWires; ++i) {
      v[i] = load(read + i * step + x);
      if constexpr (kFloats) {
        const M unknown = is_nan(v[i]);
        nans += count(unknown);
        v[i] = select(unknown, F(0.0f), v[i] + F(0.0f));
      }
    }
    run<Net>(v);
    store_ranks<Net, 0, Net::kWires>(v, to + x);
  }
  return nans;
}

// Reads the rows of all planes at one y and sorts them along z.
template <class Window>
EK_INLINE int read_sorted(const MedianPlan& plan, int64_t channel, const Box& box, float* read, float* to) {
  const Tensor& image = plan.args.image;
  const int64_t end = box.x + (box.w + kLanes - 1) / kLanes * kLanes;
  if (image.type == Type::kFloat32 && box.z >= 0 && box.z + box.d <= image.d && box.y >= 0 &&
      box.y < image.h && box.x >= 0 && end <= image.w) {
    const int64_t first = ((channel * image.d + box.z) * image.h + box.y) * image.w + box.x;
    return sort_depth<Window, true>(image.as<const float>() + first, image.h * image.w, to, box.w);
  }
  read_box(image, channel, box, plan.args.boundary, read, kMedianPitch);
  const bool floats = image.type == Type::kFloat32 || image.type == Type::kFloat16;
  return floats ? sort_depth<Window, true>(read, kMedianPitch, to, box.w)
                : sort_depth<Window, false>(read, kMedianPitch, to, box.w);
}

template <class Window, int kRadius>
void median_strip(const MedianPlan& plan, int64_t task, void* memory) {
  const Tensor& image = plan.args.image;
  const MedianRows<Window> rows(memory);
  const int64_t segment = task % plan.segments, strip = task / plan.segments % plan.strips;
  const int64_t plane = task / (plan.segments * plan.strips), channel = plane / image.d, z = plane % image.d;
  const int64_t x = segment * plan.width, first = strip * plan.rows;
  const int64_t width = image.w - x < plan.width ? image.w - x : plan.width;
  const int64_t end = first + plan.rows < image.h ? first + plan.rows : image.h;
  const int64_t columns = width + 2 * kRadius, slot_size = Window::kDepth * kMedianPitch;
  int nans[Window::kSide] = {};
  Box box{z - Window::kDepth / 2, first - kRadius, x - kRadius, Window::kDepth, 1, columns};
  for (int64_t y = first - kRadius, slot = 0; y < end + kRadius; ++y, slot = (slot + 1) % Window::kSide) {
    box.y = y;
    nans[slot] = read_sorted<Window>(plan, channel, box, rows.read, rows.sorted + slot * slot_size);
    if (y < first + kRadius) continue;
    merge_rows<typename Window::Column, Window::kSide, Window::kDepth>(rows.sorted, slot_size, rows.columns,
                                                                       columns);
    const float* flanks = rows.columns;
    if constexpr (kRadius > 1) {
      merge_rows<typename Window::Flank, kRadius, Window::kColumn>(rows.columns, 1, rows.flanks,
                                                                   width + kRadius + 1);
      flanks = rows.flanks;
    }
    median_row<Window, kRadius>(rows.columns, flanks, rows.out, width);
    int any = 0;
    for (int n : nans) any += n;
    if (any > 0) {
      box.y = y - 2 * kRadius;
      spread_nans<Window>(plan, channel, box, rows.out, rows.out + kMedianPitch);
    }
    write_row(plan.args.out, (plane * image.h + y - kRadius) * image.w + x, rows.out, width);
  }
}

using MedianTask = void (*)(const MedianPlan& plan, int64_t task, void* memory);

template <int kDims>
EK_INLINE MedianTask choose_median(int radius) {
  switch (radius) {
    case 1:
      return median_strip<MedianWindow<kDims, 1>, 1>;
    case 2:
      return median_strip<MedianWindow<kDims, 2>, 2>;
    default:
      return median_strip<MedianWindow<kDims, 3>, 3>;
  }
}

void median_workers(const void* context, int64_t begin, int64_t end) {
  const MedianPlan& plan = *static_cast<const MedianPlan*>(context);
  const MedianTask run =
      plan.args.dims == 3 ? choose_median<3>(plan.args.radius) : choose_median<2>(plan.args.radius);
  take_tasks(plan.workers, begin, end,
             [&](int64_t task, void* memory) __attribute__((always_inline)) { run(plan, task, memory); });
}

}  // namespace EK_ISA
}  // namespace ek
