#include "gradient/gradient.h"

#include <string>

#include "common/error.h"
#include "sample/sample.h"

namespace ek {
namespace {

void require_planar_floats(const char* name, const Tensor& tensor) {
  require(tensor.type == Type::kFloat32 && !tensor.channels_last,
          std::string(name) + " must be planar float32");
}

}  // namespace

GradientPlan plan_gradient(const Gradient& args) {
  require_planar_floats("cotangent", args.cotangent);
  require_planar_floats("image", args.image);
  require_planar_floats("flow", args.flow);
  require_planar_floats("out", args.out);
  check_size("image", args.image);
  require(args.cotangent.same_shape(args.image), "cotangent and image differ in shape");
  require(args.image.n == args.flow.n && args.image.same_grid(args.flow),
          "image and flow differ in batch or grid");
  require(!overlap(args.out, args.image) && !overlap(args.out, args.cotangent), "out overlaps an input");
  Sample sample;
  sample.image = sample.coordinates = args.flow;
  sample.out = args.out;
  sample.dims = args.dims;
  sample.order = args.order;
  sample.boundary = args.boundary;
  GradientPlan plan{args, plan_sample(sample)};
  plan.sample.args.image = args.image;  // which has other channels, on the same grid
  return plan;
}

void warp_gradient(const Gradient& args, Isa isa, const Parallel& parallel) {
  const GradientPlan plan = plan_gradient(args);
  parallel(tasks_of(plan.sample), EK_CHOOSE_BODY(isa, gradient_tasks), &plan);
}

}  // namespace ek
