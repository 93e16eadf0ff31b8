#include "inverse/inverse.h"

#include <algorithm>

#include "common/error.h"
#include "sample/sample.h"

namespace ek {

InversePlan plan_inverse(const Inverse& args) {
  require(args.flow.type == Type::kFloat32 && !args.flow.channels_last, "flow must be planar float32");
  require(args.out.type == Type::kFloat32 && !args.out.channels_last, "out must be planar float32");
  require(args.flow.c == args.dims, "flow must have one component per dimension");
  require(args.residual, "residual must be given");
  require(args.iterations >= 0, "iterations must not be negative");
  Sample sample;
  sample.image = sample.coordinates = args.flow;
  sample.out = args.out;
  sample.dims = args.dims;
  sample.boundary = args.boundary;
  InversePlan plan{args, plan_sample(sample)};
  plan.sample.args.coordinates = args.out;  // a voxel's search reads and writes that voxel alone
  return plan;
}

void invert(const Inverse& args, Isa isa, const Parallel& parallel) {
  const InversePlan plan = plan_inverse(args);
  std::fill_n(args.residual, args.flow.n, 0.0f);
  parallel(tasks_of(plan.sample), EK_CHOOSE_BODY(isa, inverse_tasks), &plan);
}

}  // namespace ek
