#include "srad/srad.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "common/error.h"

namespace ek {

void check(const Srad& args) {
  check_size("image", args.image);
  require(args.dims == 2 || args.dims == 3, "dims must be 2 or 3");
  require(args.dims == 3 || args.image.d == 1, "a 2-D image must have no axis D");
  require(!args.image.channels_last && !args.out.channels_last, "image and out must be planar");
  require(args.image.type <= Type::kInt16, "image must be float32, float16, uint8 or int16");
  require(args.out.same_shape(args.image) && args.out.type == args.image.type,
          "image and out differ in shape or type");
  require(!overlap(args.image, args.out), "out overlaps the image");
  require(args.iterations >= 1, "iterations must be at least 1");
  require(args.time_step > 0.0 && args.time_step <= 1.0, "time_step must be positive and at most 1");
  require(args.has_region || args.start, "start or a region must be given");
  require(args.decay >= 0.0 && std::isfinite(args.decay), "decay must not be negative");
  const int64_t sizes[] = {args.image.d, args.image.h, args.image.w};
  for (int i = 0; i < 3 && args.has_region; ++i) {
    const int64_t begin = args.region[i][0], end = args.region[i][1];
    require(begin >= 0 && begin < end && end <= sizes[i], "the region is empty or outside the image");
  }
}

StencilShape shape_of(const Srad&) {
  StencilShape shape;
  shape.fields = 2;
  shape.stages = 2;
  return shape;
}

SradPlan plan_srad(const Srad& args) {
  SradPlan plan;
  plan.half_share = static_cast<float>(1.0 / (2 * args.dims));
  plan.rate = static_cast<float>(args.time_step / (2 * args.dims));
  std::copy_n(&args.region[0][0], 6, &plan.region[0][0]);
  if (args.image.d == 1) std::swap_ranges(plan.region[0], plan.region[0] + 2, plan.region[1]);
  return plan;
}

SradStep step_of_square(double square) {
  SradStep step;
  step.square = static_cast<float>(square);
  const double inverse = 1.0 / (square * (1.0 + square));
  step.inverse = static_cast<float>(inverse > 1e38 ? 1e38 : inverse);
  return step;
}

SradStep step_of(const Srad& args, int64_t channel, int number) {
  const double q = args.start[channel] * std::exp(-args.decay * args.time_step * number);
  return step_of_square(q * q);
}

SradStep step_of_region(const Srad& args, double sum, double squares) {
  double count = 1.0;
  for (const auto& axis : args.region) count *= static_cast<double>(axis[1] - axis[0]);
  const double mean = sum / count, variance = squares / count - mean * mean;
  return step_of_square(mean == 0.0 ? 0.0 : (variance < 0.0 ? 0.0 : variance) / (mean * mean));
}

void reduce_speckle(const Srad& args, Isa isa, const Parallel& parallel) {
  check(args);
  const StencilShape shape = shape_of(args);
  SradPlan plan = plan_srad(args);
  for (int64_t channel = 0; channel < args.image.n * args.image.c; ++channel) {
    StencilPasses passes(shape, args.image, args.out, channel, args.memory, parallel);
    const auto run = [&](int iterations, bool sum, bool finish) {
      plan.pass = passes.next(iterations, sum, finish);
      plan.flat = plan.pass.image.h == 1;
      const int64_t workers = std::min<int64_t>(args.memory.workspace.workers, plan.pass.workers.tasks);
      parallel(workers, EK_CHOOSE_BODY(isa, srad_tasks), &plan);
    };
    if (args.has_region) run(0, true, false);
    for (int done = 0; done < args.iterations;) {
      const int left = args.iterations - done;
      const int count = args.has_region ? 1 : passes.iterations(left);
      if (args.has_region) plan.steps[0] = step_of_region(args, passes.sum(0), passes.sum(1));
      for (int i = 0; i < count && !args.has_region; ++i) plan.steps[i] = step_of(args, channel, done + i);
      done += count;
      run(count, args.has_region && count < left, count == left);
    }
  }
}

}  // namespace ek
