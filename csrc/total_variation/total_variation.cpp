#include "total_variation/total_variation.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"

namespace ek {
namespace {

constexpr double kGamma = 0.7;

}  // namespace

void check(const TotalVariation& args) {
  check_size("image", args.image);
  require(args.dims == 2 || args.dims == 3, "dims must be 2 or 3");
  require(args.dims == 3 || args.image.d == 1, "a 2-D image must have no axis D");
  require(!args.image.channels_last && !args.out.channels_last, "image and out must be planar");
  require(args.image.type <= Type::kInt16, "image must be float32, float16, uint8 or int16");
  require(args.out.same_shape(args.image) && args.out.type == args.image.type,
          "image and out differ in shape or type");
  require(!overlap(args.image, args.out), "out overlaps the image");
  require(args.weight > 0.0 && std::isfinite(static_cast<float>(args.weight)) &&
              static_cast<float>(args.weight) > 0.0f,
          "weight must be a positive number");
  require(args.iterations >= 1, "iterations must be at least 1");
  require(args.tolerance < 0.0 || std::isfinite(args.tolerance), "tolerance must be finite");
}

StencilShape shape_of(const TotalVariation& args) {
  const bool pair = args.method == TotalVariationMethod::kPrimalDual;
  StencilShape shape;
  const int axes = args.image.d == 1 || args.image.h == 1 ? 2 : 3;  // the others are one voxel long
  shape.fields = shape.saved = axes + (pair ? 2 : 1);
  shape.ring = pair ? 3 : 2;
  shape.extra = 1;
  shape.rows = 2;
  shape.image = true;
  return shape;
}

TotalVariationStep step_of(const TotalVariation& args, int number) {
  TotalVariationStep step;
  if (args.method == TotalVariationMethod::kChambolle) {
    step.dual = static_cast<float>(1.0 / (2 * args.dims));
    step.primal = static_cast<float>(1.0 / (2 * args.dims) / args.weight);
    return step;
  }
  // Chambolle and Pock (2011) begin with tau * sigma * |grad|^2 = 1, too; the rest is what converged fastest.
  double tau = 1.0, sigma = 1.0 / (4 * args.dims);
  for (int i = 0; i < number; ++i) {
    step.dual = static_cast<float>(sigma);
    step.primal = static_cast<float>(tau / (1.0 + tau));
    const double theta = 1.0 / std::sqrt(1.0 + 2.0 * kGamma * tau);
    step.ahead = static_cast<float>(theta);
    tau *= theta;
    sigma /= theta;
  }
  return step;
}

int until_gap(const TotalVariation& args, int done) {
  const int left = args.iterations - 1 - done;
  return args.tolerance < 0.0 ? left : std::min(left, kGapInterval - done % kGapInterval);
}

float relative_gap(double gap, double energy) {
  return energy == 0.0 ? 0.0f : static_cast<float>(gap / energy);
}

void total_variation(const TotalVariation& args, Isa isa, const Parallel& parallel) {
  check(args);
  const StencilShape shape = shape_of(args);
  TotalVariationPlan plan;
  plan.method = args.method;
  plan.weight = static_cast<float>(args.weight);
  for (int64_t channel = 0; channel < args.image.n * args.image.c; ++channel) {
    StencilPasses passes(shape, args.image, args.out, channel, args.memory, parallel);
    const auto run = [&](int iterations, bool sum, bool finish) {
      plan.pass = passes.next(iterations, sum, finish);
      plan.flat = plan.pass.image.h == 1;
      const int64_t workers = std::min<int64_t>(args.memory.workspace.workers, plan.pass.workers.tasks);
      parallel(workers, EK_CHOOSE_BODY(isa, total_variation_tasks), &plan);
    };
    const bool stops = args.tolerance >= 0.0;
    for (int done = 0;;) {
      // As far as the next look at the gap, in a few passes.
      const int aim = done + until_gap(args, done);
      const bool last = aim == args.iterations - 1;
      for (bool there = false; !there;) {
        const int count = passes.iterations(aim - done);
        for (int i = 0; i < count; ++i) plan.steps[i] = step_of(args, done + i + 1);
        done += count;
        there = done == aim;
        run(count, there && (stops || (last && args.gap)), there && last && !stops);
      }
      const float gap = stops || args.gap ? relative_gap(passes.sum(0), passes.sum(1)) : 0.0f;
      if (!last && gap > args.tolerance) continue;
      if (args.gap) args.gap[channel] = gap;
      if (stops) run(0, false, true);
      break;
    }
  }
}

}  // namespace ek
