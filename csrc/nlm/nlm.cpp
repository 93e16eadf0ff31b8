#include "nlm/nlm.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "common/error.h"

namespace ek {
namespace {

constexpr double kLog2E = 1.4426950408889634;
constexpr int64_t kMostLanes = 16;
constexpr int64_t kTileVoxels = 65536;
// Of a tile: blocks of a row, and what all blocks add up.
constexpr int64_t kBlocks = 32, kSums = 65536;

int64_t parts(int64_t length, int64_t part) { return (length + part - 1) / part; }

// Tiles large enough that few pairs are met twice, by the tile of either end, and small enough for a
// processor's second cache.
void cut_pointwise(NlmPlan& plan) {
  const bool volume = plan.args.dims == 3;
  plan.w = std::min<int64_t>(plan.args.image.w, volume ? 128 : 512);
  plan.h = volume ? 32 : 64;
  plan.d = std::clamp<int64_t>(kTileVoxels / (plan.h * plan.w), 16, 32);
}

// Tiles begin with the centre of a block, and share the blocks at their ends with the next.
void cut_blockwise(NlmPlan& plan) {
  const int64_t step = plan.args.patch_radius + 1;
  const double row = std::pow(2 * plan.args.patch_radius + 1, plan.args.dims) * kBlocks, rows = kSums / row;
  const bool volume = plan.args.dims == 3;
  const auto blocks = static_cast<int64_t>(volume ? std::sqrt(rows) : rows);
  plan.h = step * (std::clamp<int64_t>(blocks, 3, 17) - 1);
  plan.d = volume ? plan.h : 1;
  plan.w = step * (kBlocks - 1);
}

void cut(NlmPlan& plan) {
  const Tensor& image = plan.args.image;
  if (plan.args.blockwise) {
    cut_blockwise(plan);
  } else {
    cut_pointwise(plan);
  }
  plan.w = std::min<int64_t>(image.w, plan.w);
  plan.h = std::min<int64_t>(image.h, plan.h);
  plan.d = std::min<int64_t>(image.d, plan.d);
  plan.tiles_x = parts(image.w, plan.w);
  plan.tiles_y = parts(image.h, plan.h);
  plan.tiles_z = parts(image.d, plan.d);
}

// Hands out the memory of a worker, from begin to end.
struct Space {
  int64_t end = 0;

  int64_t take(int64_t floats) {
    const int64_t begin = end;
    end += parts(floats, kMostLanes) * kMostLanes;
    return begin;
  }
};

void lay_out_pointwise(NlmPlan& plan) {
  const NonLocalMeans& args = plan.args;
  PointwiseLayout& layout = plan.pointwise;
  const int64_t count = 2 * args.patch_radius + 1, reach = args.search_radius + args.patch_radius;
  const int64_t reach_z = args.dims == 3 ? reach : 0;
  layout.origin = parts(reach, kMostLanes) * kMostLanes;
  layout.pitch = layout.origin + parts(plan.w + reach + 2 * kMostLanes, kMostLanes) * kMostLanes;
  const int64_t box = (plan.d + 2 * reach_z) * (plan.h + 2 * reach) * layout.pitch;
  const int64_t sums = plan.d * plan.h * layout.pitch;
  Space space;
  space.take(kMostLanes);  // lanes in front of the first row are read, and forgotten
  layout.image = space.take(box);
  layout.squares = space.take(args.rician ? box : 0);
  layout.scales = space.take(args.sigma.voxels() > 1 ? box : 0);
  layout.differences = space.take(sums);
  layout.weights = space.take(sums);
  layout.squared = space.take(layout.pitch);
  layout.lines = space.take(count * layout.pitch);
  layout.planes = space.take(args.dims == 3 ? count * (plan.h + args.search_radius) * layout.pitch : 0);
  const int64_t layers = args.dims == 3 ? args.search_radius + 1 : 1;
  layout.pairs = space.take(layers * (plan.h + args.search_radius) * layout.pitch);
  layout.end = space.end;
}

void lay_out_blockwise(NlmPlan& plan) {
  const NonLocalMeans& args = plan.args;
  BlockwiseLayout& layout = plan.blockwise;
  const bool volume = args.dims == 3;
  const int64_t radius = args.patch_radius, step = radius + 1, reach = radius + args.search_radius;
  const auto blocks = [&](int64_t voxels) { return (voxels + step - 2) / step + 1; };
  // Rows of voxels that some blocks and what is around them have.
  const auto rows = [&](int64_t voxels, int64_t around) {
    return step * (blocks(voxels) - 1) + 1 + 2 * around;
  };
  const int64_t n_z = volume ? blocks(plan.d) : 1, n_y = blocks(plan.h), centres = n_z * n_y;
  layout.origin = kMostLanes;
  layout.pitch =
      layout.origin + parts(blocks(plan.w) + reach / step + kMostLanes + 2, kMostLanes) * kMostLanes;
  const int64_t row = step * layout.pitch, size = 2 * radius + 1;
  const int64_t box = (volume ? rows(plan.d, reach) : 1) * rows(plan.h, reach) * row;
  const int64_t planes = volume ? rows(plan.d, radius) : 1;
  Space space;
  space.take(kMostLanes);  // lanes in front of the first row are read, and forgotten
  layout.image = space.take(box);
  layout.squares = space.take(args.rician ? box : 0);
  layout.inverses = space.take(args.floor > 0.0f ? box : 0);
  layout.scales = space.take(args.sigma.voxels() > 1 ? centres * layout.pitch : 0);
  layout.differences = space.take(planes * rows(plan.h, radius) * row);
  layout.squared = space.take(row);
  layout.lines = space.take(rows(plan.h, radius) * layout.pitch);
  layout.planes = space.take(planes * n_y * layout.pitch);
  layout.weights = space.take(centres * layout.pitch);
  layout.current = space.take(layout.pitch);
  layout.sums = space.take(centres * (volume ? size : 1) * size * size * layout.pitch);
  layout.end = space.end;
}

// Whether there is one for every sample and channel, or one for all.
bool belongs(const Tensor& like, const Tensor& image) {
  return (like.n == 1 || like.n == image.n) && (like.c == 1 || like.c == image.c);
}

}  // namespace

void check(const NonLocalMeans& args) {
  const Tensor &image = args.image, &out = args.out, &sigma = args.sigma, &mask = args.mask;
  require(args.dims == 2 || args.dims == 3, "dims must be 2 or 3, got " + std::to_string(args.dims));
  check_size("image", image);
  require(image.type <= Type::kInt16, "image must be float32, float16, uint8 or int16");
  require(!image.channels_last && !out.channels_last, "image and out must be planar");
  require(args.dims == 3 || image.d == 1, "a 2-D image must have depth 1");
  require(out.type == image.type && out.same_shape(image), "image and out differ in type or shape");
  require(!overlap(out, image), "out overlaps image");
  require(args.patch_radius >= 1 && args.patch_radius <= kMaxPatchRadius,
          "patch_radius must be 1 to " + std::to_string(kMaxPatchRadius));
  require(args.search_radius >= 1 && args.search_radius <= kMaxSearchRadius,
          "search_radius must be 1 to " + std::to_string(kMaxSearchRadius));
  require(args.strength >= 0.01f && args.strength <= 100.0f, "strength must be 0.01 to 100");
  require(args.floor == 0.0f || (args.floor >= 1e-6f && args.floor <= 1e6f), "floor must be 1e-6 to 1e6");
  require(args.floor == 0.0f || (args.blockwise && !args.rician),
          "Pearson's distance is for blocks, and not for rician noise");
  check_size("sigma", sigma);
  require(sigma.type == Type::kFloat32 && !sigma.channels_last, "sigma must be planar float32");
  require(belongs(sigma, image) && (sigma.voxels() == 1 || sigma.same_grid(image)),
          "sigma must be a number per channel, or have the grid of image");
  require(!overlap(out, sigma), "out overlaps sigma");
  if (!mask.data) return;
  check_size("mask", mask);
  require(mask.type == Type::kUint8 && !mask.channels_last, "mask must be planar uint8");
  require(belongs(mask, image) && mask.same_grid(image), "mask and image differ in grid");
  require(!overlap(out, mask), "out overlaps mask");
}

NlmPlan plan_nlm(const NonLocalMeans& args) {
  check(args);
  NlmPlan plan;
  plan.args = args;
  const double strength = args.strength, voxels = std::pow(2 * args.patch_radius + 1, args.dims);
  plan.scale = static_cast<float>(kLog2E / (strength * strength * voxels));
  plan.bias = args.floor > 0.0f ? 0.0f : static_cast<float>(2.0 * kLog2E / (strength * strength));
  cut(plan);
  if (args.blockwise) {
    lay_out_blockwise(plan);
  } else {
    lay_out_pointwise(plan);
  }
  plan.workers.tasks = args.image.n * args.image.c * plan.tiles_z * plan.tiles_y * plan.tiles_x;
  plan.workers.bytes =
      aligned((plan.pointwise.end + plan.blockwise.end) * static_cast<int64_t>(sizeof(float)));
  return plan;
}

int64_t nlm_workspace_bytes(const NonLocalMeans& args) { return plan_nlm(args).workers.bytes; }

void non_local_means(const NonLocalMeans& args, Isa isa, const Parallel& parallel) {
  NlmPlan plan = plan_nlm(args);
  require(args.workspace.data && args.workspace.workers >= 1, "there is no workspace");
  plan.workers.workspace = args.workspace;
  parallel(std::min<int64_t>(args.workspace.workers, plan.workers.tasks), EK_CHOOSE_BODY(isa, nlm_workers),
           &plan);
}

}  // namespace ek
