#include "hosts/registration.h"

#include <cmath>
#include <cstring>

#include "hosts/arrays.h"
#include "jacobian/jacobian.h"
#include "sample/sample.h"

namespace ek {
namespace hosts {
namespace {

constexpr int64_t kMaxSteps = 32;
constexpr float kCubic = -0.75f;  // as PyTorch and ONNX define it

bool fits(int64_t a, int64_t b) { return a < 0 || b < 0 || a == b; }

void require_rank(const Shape& shape, const char* name) {
  require(shape.rank == 4 || shape.rank == 5,
          std::string(name) + " must have 4 or 5 axes, got " + std::to_string(shape.rank));
}

void require_flow(const Shape& shape, const char* name) {
  require_rank(shape, name);
  require(fits(shape.dims[1], dims_of(shape)), std::string(name) + " must have " +
                                                   std::to_string(dims_of(shape)) + " components, got " +
                                                   std::to_string(shape.dims[1]));
}

void require_same_grid(const Shape& a, const Shape& b, const std::string& names) {
  bool same = a.rank == b.rank && fits(a.dims[0], b.dims[0]);
  for (int i = 2; same && i < a.rank; ++i) same = fits(a.dims[i], b.dims[i]);
  require(same, names + " differ in batch or grid");
}

// What is known of a length, from two arrays that agree on it.
int64_t known(int64_t a, int64_t b) { return a < 0 ? b : a; }

Shape warped(const Shape* inputs) {
  const Shape &image = inputs[0], &flow = inputs[1];
  require_rank(image, "image");
  require_flow(flow, "flow_vox");
  require_same_grid(image, flow, "image and flow_vox");
  Shape out = image;
  for (int i = 0; i < out.rank; ++i) {
    if (i != 1) out.dims[i] = known(flow.dims[i], image.dims[i]);
  }
  return out;
}

Shape composed(const Shape* inputs) {
  require_flow(inputs[0], "first_vox");
  require_flow(inputs[1], "second_vox");
  require_same_grid(inputs[0], inputs[1], "first_vox and second_vox");
  Shape out = inputs[0];
  for (int i = 0; i < out.rank; ++i) out.dims[i] = known(out.dims[i], inputs[1].dims[i]);
  return out;
}

Shape integrated(const Shape* inputs) {
  require_flow(inputs[0], "velocity_vox");
  return inputs[0];
}

Shape sampled(const Shape* inputs) {
  const Shape &image = inputs[0], &grid = inputs[1];
  require(image.rank == 5, "image must have 5 axes, got " + std::to_string(image.rank));
  require(grid.rank == 5, "grid must have 5 axes, got " + std::to_string(grid.rank));
  require(fits(grid.dims[4], 3), "grid must have 3 components, got " + std::to_string(grid.dims[4]));
  require(fits(image.dims[0], grid.dims[0]), "image and grid differ in batch");
  return {known(image.dims[0], grid.dims[0]), image.dims[1], grid.dims[1], grid.dims[2], grid.dims[3]};
}

Shape determinant(const Shape* inputs) {
  const Shape& flow = inputs[0];
  require_flow(flow, "flow_vox");
  Shape out = flow;
  out.rank = flow.rank - 1;
  for (int i = 1; i < out.rank; ++i) out.dims[i] = flow.dims[i + 1];
  return out;
}

void run_warp(const Call& call) { sample(warp_arguments(call), call.isa, call.parallel); }

void run_compose(const Call& call) {
  const Widened first(call.inputs[0], call.parallel), second(call.inputs[1], call.parallel);
  const Narrowed out(call.output);
  const Boundary boundary = boundary_of(call.values[0].s);
  sample(compose_arguments(first.array(), second.array(), out.array(), 1.0f, boundary), call.isa,
         call.parallel);
  out.finish(call.parallel);
}

void run_integrate(const Call& call) {
  const int64_t steps = call.values[0].i;
  const Boundary boundary = boundary_of(call.values[1].s);
  const Array& given = call.inputs[0];
  if (steps == 0) {
    std::memcpy(call.output.data, given.data,
                static_cast<size_t>(given.shape.elements() * size_of(given.type)));
    return;
  }
  const Widened velocity(given, call.parallel);
  const Narrowed out(call.output);
  // Two buffers take turns, so that the last composition lands in the output. The first one scales.
  const Memory memory(1, steps > 1 ? given.shape.elements() * size_of(Type::kFloat32) : 0);
  Array spare = out.array();
  spare.data = memory.workspace.data;
  Array field = velocity.array();
  float scale = std::ldexp(1.0f, -static_cast<int>(steps));
  for (int64_t step = 0; step < steps; ++step, scale = 1.0f) {
    const Array& next = (steps - step) % 2 == 0 ? spare : out.array();
    sample(compose_arguments(field, field, next, scale, boundary), call.isa, call.parallel);
    field = next;
  }
  out.finish(call.parallel);
}

void run_grid_sample(const Call& call) {
  const Widened grid(call.inputs[1], call.parallel);
  sample(grid_sample_arguments(call, grid.array()), call.isa, call.parallel);
}

void run_determinant(const Call& call) {
  const Narrowed out(call.output);
  jacobian_determinant(determinant_arguments(call.inputs[0], out.array()), call.isa, call.parallel);
  out.finish(call.parallel);
}

void check_order(const Value& value) {
  require(value.i == 0 || value.i == 1 || value.i == 3,
          "order must be 0, 1 or 3, got " + std::to_string(value.i));
}

void check_steps(const Value& value) {
  require(value.i >= 0 && value.i <= kMaxSteps, "steps must be 0 to 32, got " + std::to_string(value.i));
}

void check_mode(const Value& value) { order_of_mode(value.s); }

void check_padding(const Value& value) { boundary_of_padding(value.s, 1, false); }

void check_flag(const Value& value) {
  require(value.i == 0 || value.i == 1, "align_corners must be 0 or 1, got " + std::to_string(value.i));
}

}  // namespace

Sample warp_arguments(const Call& call) {
  Sample args;
  args.image = planar(call.inputs[0]);
  args.coordinates = planar(call.inputs[1]);
  args.out = planar(call.output);
  args.dims = dims_of(call.output.shape);
  args.order = static_cast<int>(call.values[0].i);
  args.boundary = boundary_of(call.values[1].s);
  return args;
}

Sample compose_arguments(const Array& first, const Array& second, const Array& out, float scale,
                         Boundary boundary) {
  Sample args;
  args.image = planar(second);
  args.coordinates = planar(first);
  args.out = planar(out);
  args.dims = dims_of(out.shape);
  args.boundary = boundary;
  args.finish = Finish::kAddFlow;
  args.scale = scale;
  return args;
}

Sample grid_sample_arguments(const Call& call, const Array& grid) {
  const std::string& padding = call.values[1].s;
  Sample args;
  args.image = planar(call.inputs[0]);
  args.coordinates = innermost(grid);
  args.out = planar(call.output);
  args.source = Source::kGrid;
  args.order = order_of_mode(call.values[0].s);
  args.align_corners = call.values[2].i != 0;
  args.fold = padding == "reflection";
  args.boundary = boundary_of_padding(padding, args.order, args.align_corners);
  args.cubic = kCubic;
  return args;
}

JacobianDeterminant determinant_arguments(const Array& flow, const Array& out) {
  Array values = out;  // [N, D, H, W] as [N, 1, D, H, W]
  values.shape = flow.shape;
  values.shape.dims[1] = 1;
  JacobianDeterminant args;
  args.flow = planar(flow);
  args.out = planar(values);
  args.dims = dims_of(flow.shape);
  return args;
}

std::vector<Operator> registration_operators() {
  const Attribute boundary{"boundary", Kind::kString, false, {0, 0.0f, "edge"}, check_boundary};
  return {
      {"Warp",
       {"image", "flow_vox"},
       "moved",
       {{"order", Kind::kInt, false, {1, 0.0f, ""}, check_order}, boundary},
       warped,
       EK_ON_PROCESSOR(run_warp)},
      {"Compose",
       {"first_vox", "second_vox"},
       "flow_vox",
       {boundary},
       composed,
       EK_ON_PROCESSOR(run_compose)},
      {"IntegrateVelocity",
       {"velocity_vox"},
       "flow_vox",
       {{"steps", Kind::kInt, false, {7, 0.0f, ""}, check_steps}, boundary},
       integrated,
       EK_ON_PROCESSOR(run_integrate)},
      {"GridSample3d",
       {"image", "grid"},
       "sampled",
       {{"mode", Kind::kString, false, {0, 0.0f, "linear"}, check_mode},
        {"padding_mode", Kind::kString, false, {0, 0.0f, "zeros"}, check_padding},
        {"align_corners", Kind::kInt, false, {0, 0.0f, ""}, check_flag}},
       sampled,
       EK_ON_PROCESSOR(run_grid_sample)},
      {"JacobianDeterminant", {"flow_vox"}, "determinant", {}, determinant, EK_ON_PROCESSOR(run_determinant)},
  };
}

}  // namespace hosts
}  // namespace ek
