#include "sample/sample.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common/error.h"

namespace ek {
namespace {

// Enough voxels that handing out a task costs nothing, few enough that threads finish together.
constexpr int64_t kVoxelsPerTask = 16384;

void check_displacement(const Sample& args) {
  const auto &image = args.image, &flow = args.coordinates;
  check_size("flow", flow);
  require(flow.type == Type::kFloat32 || flow.type == Type::kFloat16, "flow must be float32 or float16");
  require(!flow.channels_last, "flow must be planar");
  require(flow.c == args.dims, "flow must have one component per dimension");
  require(flow.n == image.n && flow.same_grid(image), "image and flow differ in batch or grid");
  require(args.out.same_grid(image), "out and image differ in grid");
}

void check_grid(const Sample& args) {
  const auto& grid = args.coordinates;
  check_size("grid", grid);
  require(grid.type == Type::kFloat32, "grid must be float32");
  require(grid.channels_last, "the components of a grid must be innermost");
  require(grid.c == args.dims, "grid must have one component per dimension");
  require(grid.n == args.image.n && grid.same_grid(args.out), "image, grid and out do not go together");
}

void check_affine(const Sample& args) {
  for (const auto& row : args.matrix) {
    for (double value : row) require(std::abs(value) < kMaxAxis, "matrix must be finite and below 2^24");
  }
}

// So much of each plane of the image, times the planes that a displacement of a few voxels reaches, stays in
// the cache of a core while the planes of the output go by.
constexpr int64_t kBandBytes = 96 * 1024;

void check(const Sample& args) {
  const auto &image = args.image, &coordinates = args.coordinates, &out = args.out;
  require(args.dims == 2 || args.dims == 3, "dims must be 2 or 3, got " + std::to_string(args.dims));
  require(args.order == 0 || args.order == 1 || args.order == 3,
          "order must be 0, 1 or 3, got " + std::to_string(args.order));
  check_size("image", image);
  check_size("out", out);
  require(args.dims == 3 || (image.d == 1 && out.d == 1), "a 2-D image must have depth 1");
  require(out.n == image.n && out.c == image.c, "out and image differ in batch or channels");
  require(out.type == image.type, "out and image differ in type");
  require(out.channels_last == image.channels_last, "out and image differ in memory layout");
  require(!overlap(out, image), "out overlaps an input");
  if (args.source == Source::kDisplacement) check_displacement(args);
  if (args.source == Source::kGrid) check_grid(args);
  if (args.source == Source::kAffine) check_affine(args);
  require(args.source == Source::kAffine || !overlap(out, coordinates), "out overlaps an input");
  require(args.finish == Finish::kStore || args.source == Source::kDisplacement,
          "composition wants a displacement");
  require(
      args.finish == Finish::kStore || (image.type == Type::kFloat32 && coordinates.type == Type::kFloat32 &&
                                        args.order == 1 && image.c == args.dims && !image.channels_last),
      "composition wants planar float32 displacements and order 1");
}

int64_t period_of(int64_t size, Boundary boundary) {
  switch (boundary) {
    case Boundary::kMirror:
      return std::max<int64_t>(2 * size - 2, 1);
    case Boundary::kReflect:
      return 2 * size;
    default:
      return size;
  }
}

Axis axis_of(int64_t size, int64_t stride, Boundary boundary) {
  const int64_t period = period_of(size, boundary);
  return {static_cast<float>(size), 1.0f / static_cast<float>(period), static_cast<int32_t>(size),
          static_cast<int32_t>(period), static_cast<int32_t>(stride)};
}

RangeFn body(Isa isa) {
  switch (isa) {
#if EK_X86
    case Isa::kAvx512:
      return avx512::sample_tasks;
    case Isa::kAvx2:
      return avx2::sample_tasks;
#elif EK_ARM64
    case Isa::kNeon:
      return neon::sample_tasks;
#endif
    default:
      return scalar::sample_tasks;
  }
}

}  // namespace

void set_axes(SamplePlan& plan) {
  const Tensor& image = plan.args.image;
  plan.axis[0] = axis_of(image.d, image.h * image.w, plan.args.boundary);
  plan.axis[1] = axis_of(image.h, image.w, plan.args.boundary);
  plan.axis[2] = axis_of(image.w, 1, plan.args.boundary);
}

SamplePlan plan_sample(const Sample& args) {
  check(args);
  SamplePlan plan;
  plan.args = args;
  set_axes(plan);
  plan.rows = args.out.n * args.out.d * args.out.h;
  plan.rows_per_task = std::max<int64_t>(1, kVoxelsPerTask / args.out.w);
  plan.band = std::clamp<int64_t>(kBandBytes / (args.image.w * args.image.c * size_of(args.image.type)), 1,
                                  args.out.h);
  return plan;
}

int64_t tasks_of(const SamplePlan& plan) { return (plan.rows + plan.rows_per_task - 1) / plan.rows_per_task; }

void sample(const Sample& args, Isa isa, const Parallel& parallel) {
  require(args.image.type != Type::kInt32 && args.image.type != Type::kInt64,
          "labels cannot be interpolated");
  const SamplePlan plan = plan_sample(args);
  parallel(tasks_of(plan), body(isa), &plan);
}

}  // namespace ek
