#include "guided/guided.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"

namespace ek {
namespace {

// Of a task: the columns of all taps stay in the cache.
constexpr int64_t kColumns = 512, kRows = 32;
constexpr int64_t kVoxelsPerTask = 16384;
constexpr int64_t kMaxReach = 4096;
constexpr int64_t kWidestVector = 16;

GuidedPlan plan_of(const GuidedPass& args) {
  const Tensor& image = args.image;
  const auto parts = [](int64_t length, int64_t part) { return (length + part - 1) / part; };
  GuidedPlan plan;
  plan.args = args;
  plan.size = args.axis == 0 ? image.d : args.axis == 1 ? image.h : image.w;
  plan.inner = args.axis == 0 ? image.h * image.w : args.axis == 1 ? image.w : 1;
  plan.outer = image.elements() / (plan.size * plan.inner);
  if (args.axis == 2) {
    plan.rows = std::clamp<int64_t>(kVoxelsPerTask / image.w, 1, plan.outer);
    plan.columns = image.w;
    plan.row_tasks = parts(plan.outer, plan.rows);
    plan.workers.tasks = plan.row_tasks;
  } else {
    plan.rows = std::min(plan.size, kRows);
    plan.columns = std::min(plan.inner, kColumns);
    plan.row_tasks = parts(plan.size, plan.rows);
    plan.column_tasks = parts(plan.inner, plan.columns);
    plan.workers.tasks = plan.outer * plan.row_tasks * plan.column_tasks;
  }
  const int64_t line = plan.columns + kWidestVector + (args.axis == 2 ? 2 * args.reach : 0);
  plan.pointer_bytes = aligned(kMostMoments * (2 * args.reach + 1) * static_cast<int64_t>(sizeof(void*)));
  plan.row_bytes = aligned(line * static_cast<int64_t>(sizeof(float)));
  plan.workers.bytes = plan.pointer_bytes + (kMostMoments + 3) * plan.row_bytes;
  return plan;
}

bool is_image(const Tensor& tensor) {
  return !tensor.channels_last && size_of(tensor.type) <= 4 && tensor.type != Type::kInt32;
}

void check_plain(const Guided& args) {
  const Tensor &image = args.image, &guide = args.guide, &out = args.out;
  check_size("image", image);
  require(is_image(image), "image must be planar, and of a type of images");
  require(out.same_shape(image) && out.type == image.type && !out.channels_last,
          "image and out differ in shape, type or layout");
  require(!overlap(out, image), "out overlaps image");
  if (guide.data) {
    check_size("guide", guide);
    require(is_image(guide), "guide must be planar, and of a type of images");
    require(guide.n == image.n && guide.same_grid(image), "guide and image differ in batch or grid");
    require(guide.c == image.c || guide.c == 1, "guide must have the channels of image, or one");
    require(!overlap(out, guide), "out overlaps guide");
  }
  require(std::isfinite(args.epsilon) && args.epsilon > 0.0f, "epsilon must be finite and positive");
  for (int64_t reach : args.reach) require(reach >= 0 && reach <= kMaxReach, "the box reaches too far");
}

}  // namespace

int64_t spare_floats(const Guided& args) {
  check_plain(args);
  return 2 * (args.guide.data ? kMostMoments : 2) * args.image.elements();
}

Workers needs(const Guided& args) {
  check_plain(args);
  Workers all;
  each_pass(args, [&](const GuidedPass& pass) {
    const Workers one = plan_of(pass).workers;
    all.bytes = std::max(all.bytes, one.bytes);
    all.tasks = std::max(all.tasks, one.tasks);
  });
  return all;
}

void check(const Guided& args) {
  check_plain(args);
  require(args.spare != nullptr, "there is no spare memory");
}

void guided_filter(const Guided& args, Isa isa, const Parallel& parallel) {
  check(args);
  const int64_t bytes = needs(args).bytes;
  each_pass(args, [&](const GuidedPass& pass) {
    GuidedPlan plan = plan_of(pass);
    plan.workers.workspace = args.workspace;
    plan.workers.bytes = bytes;
    parallel(args.workspace.workers, EK_CHOOSE_BODY(isa, guided_workers), &plan);
  });
}

}  // namespace ek
