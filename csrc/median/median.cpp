#include "median/median.h"

#include <algorithm>

#include "common/error.h"

namespace ek {
namespace {

// Enough that the rows above the first one, which a task sorts anew, count little.
constexpr int64_t kRowsPerTask = 32;
// For columns of more voxels, so that their sorted lists stay in the cache.
constexpr int64_t kFewColumns = 128, kShort = 9;

int64_t workspace_of(const Median& args) {
  const int64_t side = 2 * args.radius + 1, depth = args.dims == 3 ? side : 1, column = side * depth;
  // As they are read, results and a scratch row; sorted lists of rows, of columns, of several columns.
  const int64_t rows = depth + 2 + column + column + args.radius * column;
  return aligned(rows * kMedianPitch * static_cast<int64_t>(sizeof(float)));
}

}  // namespace

void check(const Median& args) {
  check_size("image", args.image);
  check_size("out", args.out);
  require(args.image.same_shape(args.out) && args.image.type == args.out.type,
          "out must have the shape and the type of the image");
  require(args.image.type <= Type::kInt16, "image must be float32, float16, uint8 or int16");
  require(!args.image.channels_last && !args.out.channels_last, "image and out must be planar");
  require(args.dims == 3 || (args.dims == 2 && args.image.d == 1), "dims must be 3, or 2 for a flat image");
  require(args.radius >= 1 && args.radius <= kMaxMedianRadius, "radius must be 1, 2 or 3");
  require(!overlap(args.image, args.out), "out overlaps the image");
}

MedianPlan plan_median(const Median& args) {
  check(args);
  const auto parts = [](int64_t length, int64_t part) { return (length + part - 1) / part; };
  MedianPlan plan;
  plan.args = args;
  plan.rows = std::min(args.image.h, kRowsPerTask);
  const int64_t side = 2 * args.radius + 1, column = args.dims == 3 ? side * side : side;
  plan.width = std::min(args.image.w, (column > kShort ? kFewColumns : kMedianColumns) - 2 * args.radius);
  plan.strips = parts(args.image.h, plan.rows);
  plan.segments = parts(args.image.w, plan.width);
  plan.workers.workspace = args.workspace;
  plan.workers.bytes = workspace_of(args);
  plan.workers.tasks = args.image.n * args.image.c * args.image.d * plan.strips * plan.segments;
  return plan;
}

void median(const Median& args, Isa isa, const Parallel& parallel) {
  const MedianPlan plan = plan_median(args);
  require(args.workspace.data && args.workspace.workers >= 1, "there is no workspace");
  parallel(std::min<int64_t>(args.workspace.workers, plan.workers.tasks), EK_CHOOSE_BODY(isa, median_workers),
           &plan);
}

}  // namespace ek
