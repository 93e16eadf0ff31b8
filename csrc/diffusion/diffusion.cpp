#include "diffusion/diffusion.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/error.h"

namespace ek {

void check(const Diffusion& args) {
  check_size("image", args.image);
  require(args.dims == 2 || args.dims == 3, "dims must be 2 or 3");
  require(args.dims == 3 || args.image.d == 1, "a 2-D image must have no axis D");
  require(!args.image.channels_last && !args.out.channels_last, "image and out must be planar");
  require(args.image.type <= Type::kInt16, "image must be float32, float16, uint8 or int16");
  require(args.out.same_shape(args.image) && args.out.type == args.image.type,
          "image and out differ in shape or type");
  require(!overlap(args.image, args.out), "out overlaps the image");
  require(args.iterations >= 1, "iterations must be at least 1");
  require(args.interval >= 1, "the interval must be at least 1");
  require(args.conductance > 0.0 && std::isfinite(args.conductance), "conductance must be positive");
  require(args.time_step > 0.0 && args.time_step <= 1.0 / (2 << args.dims),
          "time_step must be positive and at most 1 / 2^(dims + 1)");
}

StencilShape shape_of(const Diffusion&) {
  StencilShape shape;
  shape.spare = 1;
  shape.rows = 4;
  return shape;
}

DiffusionStep step_of(const Diffusion& args, double sum) {
  const double mean = sum / 4.0 / static_cast<double>(args.image.voxels());
  const double k = -2.0 * args.conductance * args.conductance * mean;
  DiffusionStep step;
  if (k == 0.0) return step;  // nothing conducts where nothing changes
  const double inverse = 1.4426950408889634 / k, lowest = std::numeric_limits<float>::lowest();
  step.time_step = static_cast<float>(args.time_step);
  step.inverse_k = static_cast<float>(inverse < lowest ? lowest : inverse);
  return step;
}

void diffuse(const Diffusion& args, Isa isa, const Parallel& parallel) {
  check(args);
  DiffusionPlan plan;
  plan.form = args.form;
  for (int64_t channel = 0; channel < args.image.n * args.image.c; ++channel) {
    StencilPasses passes(shape_of(args), args.image, args.out, channel, args.memory, parallel);
    const auto run = [&](int iterations, bool sum, bool finish) {
      plan.pass = passes.next(iterations, sum, finish);
      plan.flat = plan.pass.image.h == 1;
      const int64_t workers = std::min<int64_t>(args.memory.workspace.workers, plan.pass.workers.tasks);
      parallel(workers, EK_CHOOSE_BODY(isa, diffusion_tasks), &plan);
    };
    run(0, true, false);
    for (int done = 0; done < args.iterations;) {
      if (done % args.interval == 0) plan.step = step_of(args, passes.sum(0));
      const int left = args.iterations - done, fresh = args.interval - done % args.interval;
      const int count = passes.iterations(std::min(left, fresh));
      done += count;
      run(count, done % args.interval == 0 && count < left, count == left);
    }
  }
}

}  // namespace ek
