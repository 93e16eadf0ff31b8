#include "bilateral/bilateral.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "common/error.h"

namespace ek {
namespace {

// Blocks are large enough that most of what is read is used, and most pairs of voxels are within one.
constexpr int64_t kColumnsPerBlock = 512, kRowsPerBlock = 64;
constexpr int64_t kVolumeColumns = 128, kVolumeRows = 16, kPlanes = 16;
constexpr int64_t kMaxReach = 128;
constexpr int64_t kWidestVector = 16;

int64_t whole_vectors(int64_t floats) { return (floats + kWidestVector - 1) / kWidestVector * kWidestVector; }

int64_t bytes_of(int64_t floats) { return aligned(floats * static_cast<int64_t>(sizeof(float))); }

BilateralPlan plan_of(const Bilateral& args) {
  const Tensor& image = args.image;
  const bool volume = image.d > 1;
  BilateralPlan plan;
  plan.args = args;
  plan.block[0] = std::min(image.d, kPlanes);
  plan.block[1] = std::min(image.h, volume ? kVolumeRows : kRowsPerBlock);
  plan.block[2] = std::min(image.w, volume ? kVolumeColumns : kColumnsPerBlock);
  const int64_t sizes[] = {image.d, image.h, image.w};
  plan.workers.tasks = image.n * image.c;
  for (int axis = 0; axis < 3; ++axis) {
    plan.blocks[axis] = (sizes[axis] + plan.block[axis] - 1) / plan.block[axis];
    plan.workers.tasks *= plan.blocks[axis];
  }
  plan.sums_pitch = whole_vectors(plan.block[2]);
  plan.margin = whole_vectors(args.reach[2]);
  // The last vector of a row may begin at its last voxel, and that of the pairs where the block's ends.
  plan.pitch = plan.sums_pitch + 2 * plan.margin + kWidestVector;
  plan.box_bytes = bytes_of(
      (plan.block[0] + 2 * args.reach[0]) * (plan.block[1] + 2 * args.reach[1]) * plan.pitch + plan.margin);
  plan.sums_bytes = bytes_of(plan.block[0] * plan.block[1] * plan.sums_pitch);
  plan.row_bytes = bytes_of(plan.pitch);
  plan.workers.bytes = (args.guide.data ? 2 : 1) * plan.box_bytes + 2 * (plan.sums_bytes + plan.row_bytes);
  plan.workers.workspace = args.workspace;
  return plan;
}

void check_table(const Bilateral& args) {
  require(args.pairs >= 0 && args.pairs <= kMaxElements / 3, "there are too many offsets");
  for (int64_t reach : args.reach) {
    require(reach >= 0 && reach <= kMaxReach, "an offset may be at most 128 voxels");
  }
  int64_t before = INT64_MAX;
  for (int64_t k = 0; k < args.pairs; ++k) {
    const int32_t* o = args.offsets + 3 * k;
    for (int axis = 0; axis < 3; ++axis) {
      require(std::abs(int64_t{o[axis]}) <= args.reach[axis], "an offset is beyond reach");
    }
    const int64_t row = o[0] * (4 * kMaxReach) + o[1];
    require(row <= before, "the rows of offsets must descend");
    require(row > 0 || (row == 0 && o[2] > 0), "an offset must lie after the voxel");
    before = row;
  }
}

}  // namespace

void check(const Bilateral& args) {
  const Tensor &image = args.image, &guide = args.guide, &out = args.out;
  check_size("image", image);
  require(!image.channels_last && !out.channels_last && !guide.channels_last, "arrays must be planar");
  require(size_of(image.type) <= 4 && image.type != Type::kInt32, "image must be of a type of images");
  require(out.same_shape(image) && out.type == image.type, "image and out differ in shape or type");
  require(!overlap(out, image), "out overlaps image");
  if (guide.data) {
    check_size("guide", guide);
    require(size_of(guide.type) <= 4 && guide.type != Type::kInt32, "guide must be of a type of images");
    require(guide.n == image.n && guide.same_grid(image), "guide and image differ in batch or grid");
    require(guide.c == image.c || guide.c == 1, "guide must have the channels of image, or one");
    require(!overlap(out, guide), "out overlaps guide");
  }
  require(std::isfinite(args.decay) && args.decay <= 0.0f, "decay must be finite and not positive");
  check_table(args);
}

Workers needs(const Bilateral& args) {
  check(args);
  return plan_of(args).workers;
}

void bilateral(const Bilateral& args, Isa isa, const Parallel& parallel) {
  check(args);
  const BilateralPlan plan = plan_of(args);
  parallel(args.workspace.workers, EK_CHOOSE_BODY(isa, bilateral_workers), &plan);
}

}  // namespace ek
