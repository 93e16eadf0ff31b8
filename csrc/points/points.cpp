#include "points/points.h"

#include "common/error.h"
#include "points/points_plan.h"
#include "sample/sample.h"

namespace ek {
namespace {

void check(const MovePoints& args) {
  const auto &points = args.points, &flow = args.flow;
  require(args.dims == 2 || args.dims == 3, "dims must be 2 or 3");
  check_size("points", points);
  check_size("flow", flow);
  require(points.type == Type::kFloat32 && flow.type == Type::kFloat32, "points and flow must be float32");
  require(points.channels_last && points.d == 1 && points.h == 1, "points must be vectors in one line");
  require(!flow.channels_last && flow.c == args.dims && (args.dims == 3 || flow.d == 1),
          "flow must be planar, with one component per dimension");
  require(points.n == flow.n && points.c == flow.c, "points and flow differ in batch or components");
  require(args.out.same_shape(points) && args.out.type == points.type && args.out.channels_last,
          "out and points differ in shape or type");
  require(!overlap(args.out, points) && !overlap(args.out, flow), "out overlaps an input");
}

}  // namespace

PointsPlan plan_points(const MovePoints& args) {
  check(args);
  PointsPlan plan;
  Sample& sample = plan.sample.args;
  sample.image = args.flow;
  sample.coordinates = args.points;
  sample.out = args.out;
  sample.dims = args.dims;
  sample.boundary = args.boundary;
  set_axes(plan.sample);
  plan.tasks_per_batch = (args.points.w + kPointsPerTask - 1) / kPointsPerTask;
  return plan;
}

void move_points(const MovePoints& args, Isa isa, const Parallel& parallel) {
  const PointsPlan plan = plan_points(args);
  parallel(args.points.n * plan.tasks_per_batch, EK_CHOOSE_BODY(isa, point_tasks), &plan);
}

}  // namespace ek
