#include "labels/labels.h"

#include "common/error.h"
#include "sample/sample.h"

namespace ek {

LabelsPlan plan_labels(const Labels& args) {
  require(!args.labels.channels_last && !args.out.channels_last, "labels and out must be planar");
  require(args.flow.type == Type::kFloat32, "flow must be float32");
  Sample sample;
  sample.image = args.labels;
  sample.coordinates = args.flow;
  sample.out = args.out;
  sample.dims = args.dims;
  sample.order = args.linear ? 1 : 0;
  sample.boundary = args.boundary;
  return {args, plan_sample(sample)};
}

void warp_labels(const Labels& args, Isa isa, const Parallel& parallel) {
  const LabelsPlan plan = plan_labels(args);
  parallel(tasks_of(plan.sample), EK_CHOOSE_BODY(isa, labels_tasks), &plan);
}

}  // namespace ek
