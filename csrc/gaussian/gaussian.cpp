#include "gaussian/gaussian.h"

#include <algorithm>
#include <cstddef>

#include "common/error.h"

namespace ek {
namespace {

// Of a task across rows: the columns of all taps stay in the cache.
constexpr int64_t kColumns = 1024, kRows = 32;
constexpr int64_t kVoxelsPerTask = 16384;
constexpr int64_t kMaxReach = 4096;
constexpr int64_t kWidestVector = 16;

AxisPlan plan_of(const AxisPass& args) {
  const Tensor& image = args.out;
  const auto parts = [](int64_t length, int64_t part) { return (length + part - 1) / part; };
  AxisPlan plan;
  plan.args = args;
  plan.size = args.axis == 0 ? image.d : args.axis == 1 ? image.h : image.w;
  plan.inner = args.axis == 0 ? image.h * image.w : args.axis == 1 ? image.w : 1;
  plan.outer = image.elements() / (plan.size * plan.inner);
  int64_t floats, pointers = 0;
  if (args.axis == 2) {
    plan.rows = std::clamp<int64_t>(kVoxelsPerTask / image.w, 1, plan.outer);
    plan.row_tasks = parts(plan.outer, plan.rows);
    plan.workers.tasks = plan.row_tasks;
    floats = 2 * (image.w + args.reach + kWidestVector);
  } else {
    plan.rows = std::min(plan.size, kRows);
    plan.columns = std::min(plan.inner, kColumns);
    plan.row_tasks = parts(plan.size, plan.rows);
    plan.column_tasks = parts(plan.inner, plan.columns);
    plan.workers.tasks = plan.outer * plan.row_tasks * plan.column_tasks;
    floats = 2 * (plan.columns + kWidestVector);
    pointers = 2 * args.reach + 1;
  }
  plan.workers.bytes = aligned(floats * static_cast<int64_t>(sizeof(float))) +
                       aligned(pointers * static_cast<int64_t>(sizeof(void*)));
  return plan;
}

void check_spares(const Gaussian& args) {
  for (int i = 0; i < spares(args); ++i) {
    const Tensor& spare = args.spares[i];
    require(
        spare.data && spare.same_shape(args.image) && spare.type == Type::kFloat32 && !spare.channels_last,
        "a spare array is missing, or is not planar float32 of the image's shape");
    require(!overlap(spare, args.image) && !overlap(spare, args.out) &&
                (i == 0 || !overlap(spare, args.spares[0])),
            "a spare array overlaps another");
  }
}

void check_plain(const Gaussian& args) {
  const Tensor &image = args.image, &out = args.out;
  check_size("image", image);
  require(!image.channels_last && !out.channels_last, "image and out must be planar");
  require(size_of(image.type) <= 4 && image.type != Type::kInt32, "image must be of a type of images");
  require(out.same_shape(image) && out.type == image.type, "image and out differ in shape or type");
  require(!overlap(out, image), "out overlaps image");
  for (int64_t reach : args.reach) require(reach >= 0 && reach <= kMaxReach, "a Gaussian reaches too far");
}

}  // namespace

int spares(const Gaussian& args) {
  const int passes = 1 + (args.reach[0] > 0) + (args.reach[1] > 0);
  return args.out.type == Type::kFloat32 ? std::min(passes - 1, 1) : passes - 1;
}

Workers needs(const Gaussian& args) {
  check_plain(args);
  Workers all;
  each_pass(args, [&](AxisPass pass) {
    pass.out = args.out;  // spares need not be there yet
    const Workers one = plan_of(pass).workers;
    all.bytes = std::max(all.bytes, one.bytes);
    all.tasks = std::max(all.tasks, one.tasks);
  });
  return all;
}

void check(const Gaussian& args) {
  check_plain(args);
  check_spares(args);
}

void gaussian(const Gaussian& args, Isa isa, const Parallel& parallel) {
  check(args);
  const int64_t bytes = needs(args).bytes;
  each_pass(args, [&](const AxisPass& pass) {
    AxisPlan plan = plan_of(pass);
    plan.workers.workspace = args.workspace;
    plan.workers.bytes = bytes;
    parallel(args.workspace.workers, EK_CHOOSE_BODY(isa, gaussian_workers), &plan);
  });
}

}  // namespace ek
