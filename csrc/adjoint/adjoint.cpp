#include "adjoint/adjoint.h"

#include <algorithm>
#include <string>

#include "common/error.h"
#include "sample/sample.h"

namespace ek {
namespace {

// A block is placed again for every slab it reaches: thin slabs cost time, thick ones leave threads idle.
constexpr int64_t kMinPlanes = 8, kSlabsPerThread = 2, kUnknownThreads = 8;

constexpr int64_t kBlockVoxels = 256;  // kBlock of sample/block-inl.h

int64_t parts(int64_t length, int64_t part) { return (length + part - 1) / part; }

void require_planar_floats(const char* name, const Tensor& tensor) {
  require(tensor.type == Type::kFloat32 && !tensor.channels_last,
          std::string(name) + " must be planar float32");
}

void check(const Adjoint& args) {
  require_planar_floats("values", args.values);
  require_planar_floats("flow", args.flow);
  require_planar_floats("out", args.out);
  const Tensor& counts = args.counts;
  if (!counts.data) return;
  require_planar_floats("count", counts);
  check_size("count", counts);
  require(counts.n == args.values.n && counts.c == 1 && counts.same_grid(args.values),
          "count and values differ in batch or grid");
  require(!overlap(counts, args.values) && !overlap(counts, args.flow) && !overlap(counts, args.out),
          "count overlaps another array");
}

}  // namespace

AdjointPlan plan_adjoint(const Adjoint& args) {
  check(args);
  Sample sample;
  sample.image = args.values;
  sample.coordinates = args.flow;
  sample.out = args.out;
  sample.dims = args.dims;
  sample.order = args.order;
  sample.boundary = args.boundary;
  AdjointPlan plan{args, plan_sample(sample)};
  plan.sample.args.image = args.out;  // blocks say where to write, on the same grid
  plan.blocks = parts(args.values.w, kBlockVoxels);
  return plan;
}

namespace {

// The result is the same however it is cut.
void cut(AdjointPlan& plan, int threads) {
  plan.axis = plan.args.out.d > 1 ? 0 : 1;
  const int64_t planes = plan.sample.axis[plan.axis].count;
  const int64_t slabs = threads == 1 ? 1 : kSlabsPerThread * (threads > 0 ? threads : kUnknownThreads);
  plan.planes = slabs == 1 ? planes : std::max(kMinPlanes, parts(planes, slabs));
  plan.slabs = parts(planes, plan.planes);
}

}  // namespace

int64_t adjoint_reaches(const Tensor& values) {
  return values.n * values.d * values.h * parts(values.w, kBlockVoxels);
}

void warp_adjoint(const Adjoint& args, Isa isa, const Parallel& parallel) {
  require(args.reaches, "reaches must be given");
  AdjointPlan plan = plan_adjoint(args);
  cut(plan, parallel.threads);
  parallel(tasks_of(plan.sample), EK_CHOOSE_BODY(isa, reach_tasks), &plan);
  parallel(args.out.n * plan.slabs, EK_CHOOSE_BODY(isa, adjoint_tasks), &plan);
}

}  // namespace ek
