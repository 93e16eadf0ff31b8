// A guided filter along one axis, compiled once per instruction set. Included after one of
// common/simd_*-inl.h; nothing of the standard library may be used here (see platform.h).
#pragma once

#include "common/box-inl.h"
#include "guided/guided_math-inl.h"
#include "guided/guided_plan.h"

namespace ek {
namespace EK_ISA {

// The parts of a worker's memory.
struct GuidedScratch {
  const float** taps;          // of each input, where its line is at every step of the box
  float* lines[kMostMoments];  // rows of the inputs with what surrounds them
  float *zeros, *guide, *result;
};

EK_INLINE GuidedScratch scratch_of(const GuidedPlan& plan, char* memory) {
  GuidedScratch scratch;
  scratch.taps = reinterpret_cast<const float**>(memory);
  memory += plan.pointer_bytes;
  const auto next = [&]() __attribute__((always_inline)) {
    float* row = reinterpret_cast<float*>(memory);
    memory += plan.row_bytes;
    return row;
  };
  for (float*& line : scratch.lines) line = next();
  scratch.zeros = next();
  scratch.guide = next();
  scratch.result = next();
  return scratch;
}

// A row of voxels, the first one being `at`, whose lines the taps show.
template <class Sums>
EK_INLINE void sum_row(const GuidedPass& args, const GuidedScratch& scratch, int64_t at, int64_t count) {
  constexpr int kInputs = Sums::kInputs;
  const int64_t reach = args.reach, steps = 2 * reach + 1;
  for (int64_t x = 0; x < count; x += kLanes) {
    const int lanes = count - x < kLanes ? static_cast<int>(count - x) : kLanes;
    const auto read = [&](int64_t k) __attribute__((always_inline)) {
      Values<kInputs> values;
      for (int i = 0; i < kInputs; ++i) {
        values.v[i] = load_some(scratch.taps[i * steps + reach + k] + x, lanes);
      }
      return values;
    };
    Sums sums(read(0));
    for (int64_t k = 1; k <= reach; ++k) {
      sums.add(read(-k));
      sums.add(read(k));
    }
    const auto result = sums.finish(F(args.share));
    if (args.means && args.last) {
      store(scratch.result + x, result.v[0] * load(scratch.guide + x) + result.v[1]);
    } else if (args.last) {
      const Values<2> line = line_of(result, F(args.epsilon));
      for (int i = 0; i < 2; ++i) store_some(args.to[i] + at + x, line.v[i], lanes);
    } else {
      for (int i = 0; i < kInputs; ++i) store_some(args.to[i] + at + x, result.v[i], lanes);
    }
  }
}

EK_INLINE void sum_row(const GuidedPass& args, const GuidedScratch& scratch, int64_t at, int64_t count) {
  if (args.means && args.last) {  // voxels that lie side by side in memory, in whatever rows
    Tensor flat = args.guide;
    int64_t from = at;
    if (args.guide.c != args.image.c) {
      const int64_t voxels = args.image.voxels(), c = at / voxels;
      from = at - (c - c / args.image.c) * voxels;
    }
    flat.n = flat.c = flat.d = flat.h = 1;
    flat.w = args.guide.elements();
    read_box(flat, 0, {0, 0, from, 1, 1, count}, Boundary::kEdge, scratch.guide, count);
  }
  if (args.means) {
    sum_row<MeanSums>(args, scratch, at, count);
  } else if (args.guided) {
    sum_row<GuidedSums>(args, scratch, at, count);
  } else {
    sum_row<OwnSums>(args, scratch, at, count);
  }
  if (args.means && args.last) write_row(args.out, at, scratch.result, count);
}

// Row r of the images, with what surrounds it along x.
EK_INLINE void read_lines(const GuidedPass& args, const GuidedScratch& scratch, int64_t r) {
  const Tensor& image = args.image;
  const int64_t h = image.h, reach = args.reach, width = image.w + 2 * reach, c = r / h / image.d;
  if (!args.first) {
    for (int i = 0; i < args.inputs(); ++i) {
      read_row(args.in[i] + r * image.w, image.w, -reach, width, args.boundary, scratch.lines[i]);
    }
    return;
  }
  const Box box{r / h % image.d, r % h, -reach, 1, 1, width};
  const int64_t of_guide = args.guide.c == image.c ? c : c / image.c;
  read_box(args.guide, of_guide, box, args.boundary, scratch.lines[0], width);
  if (args.guided) read_box(image, c, box, args.boundary, scratch.lines[2], width);
  for (int i = 1; i < args.inputs(); i += 2) {
    for (int64_t x = 0; x < width; ++x) scratch.lines[i][x] = 0.0f;
  }
}

EK_INLINE void along_rows(const GuidedPlan& plan, const GuidedScratch& scratch, int64_t task) {
  const GuidedPass& args = plan.args;
  const int64_t begin = task * plan.rows, steps = 2 * args.reach + 1;
  const int64_t end = begin + plan.rows < plan.outer ? begin + plan.rows : plan.outer;
  for (int i = 0; i < args.inputs(); ++i) {
    for (int64_t k = 0; k < steps; ++k) scratch.taps[i * steps + k] = scratch.lines[i] + k;
  }
  for (int64_t r = begin; r < end; ++r) {
    read_lines(args, scratch, r);
    sum_row(args, scratch, r * args.image.w, args.image.w);
  }
}

// Some columns of some rows, or of planes: neighbours in memory at a time.
EK_INLINE void across_rows(const GuidedPlan& plan, const GuidedScratch& scratch, int64_t task) {
  const GuidedPass& args = plan.args;
  const auto part = [](int64_t at, int64_t size, int64_t most)
                        __attribute__((always_inline)) { return size - at < most ? size - at : most; };
  const int64_t x = task % plan.column_tasks * plan.columns, columns = part(x, plan.inner, plan.columns);
  const int64_t group = task / plan.column_tasks, begin = group % plan.row_tasks * plan.rows;
  const int64_t first = group / plan.row_tasks * plan.size, end = begin + part(begin, plan.size, plan.rows);
  const int64_t steps = 2 * args.reach + 1;
  for (int64_t i = 0; i < columns; ++i) scratch.zeros[i] = 0.0f;
  for (int64_t p = begin; p < end; ++p) {
    for (int64_t k = 0; k < steps; ++k) {
      const int64_t at = voxel_at(p + k - args.reach, plan.size, args.boundary);
      for (int i = 0; i < args.inputs(); ++i) {
        scratch.taps[i * steps + k] = at < 0 ? scratch.zeros : args.in[i] + (first + at) * plan.inner + x;
      }
    }
    sum_row(args, scratch, (first + p) * plan.inner + x, columns);
  }
}

void guided_workers(const void* context, int64_t begin, int64_t end) {
  const GuidedPlan& plan = *static_cast<const GuidedPlan*>(context);
  take_tasks(plan.workers, begin, end, [&](int64_t task, char* memory) {
    const GuidedScratch scratch = scratch_of(plan, memory);
    if (plan.args.axis == 2) return along_rows(plan, scratch, task);
    across_rows(plan, scratch, task);
  });
}

}  // namespace EK_ISA
}  // namespace ek
