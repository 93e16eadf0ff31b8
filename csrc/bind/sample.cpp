// Operators that sample an image.
#include "sample/sample.h"

#include "bind/bind.h"
#include "bind/gpu.h"

namespace ek {
namespace bind {
namespace {

void warp(const py::array& image, const py::array& flow, const py::array& out, int order,
          const std::string& boundary, bool add_flow, float scale, int threads, const std::string& isa) {
  require(image.ndim() == flow.ndim() && image.ndim() == out.ndim(), "image, flow and out differ in rank");
  Sample args;
  args.image = tensor("image", image, Use::kRead);
  args.coordinates = tensor("flow", flow, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  args.dims = static_cast<int>(image.ndim()) - 2;
  args.order = order;
  args.boundary = boundary_of(boundary);
  args.finish = add_flow ? Finish::kAddFlow : Finish::kStore;
  args.scale = scale;
  run(ek::sample, gpu::sample, args, threads, isa);
}

void gpu_integrate_velocity(const py::array& velocity, const py::array& out, int steps,
                            const std::string& boundary) {
  const Tensor from = tensor("velocity", velocity, Use::kRead), to = tensor("out", out, Use::kWrite);
  require(velocity.ndim() == out.ndim() && from.c == velocity.ndim() - 2, "velocity and out must be fields");
  const Boundary rule = boundary_of(boundary);
  py::gil_scoped_release unlocked;
  gpu::integrate_velocity(from, to, steps, rule);
}

}  // namespace

void add_sample(py::module_& m) {
  m.def("warp", &warp, py::arg("image").noconvert(), py::arg("flow").noconvert(), py::arg("out").noconvert(),
        py::kw_only(), py::arg("order") = 1, py::arg("boundary") = "edge", py::arg("add_flow") = false,
        py::arg("scale") = 1.0f, py::arg("threads") = 1, py::arg("isa") = "",
        "out[p] = image[p + scale * flow[p]], plus the displacement, times the scale, with add_flow.");
  m.def("gpu_integrate_velocity", &gpu_integrate_velocity, py::arg("velocity").noconvert(),
        py::arg("out").noconvert(), py::kw_only(), py::arg("steps"), py::arg("boundary") = "edge",
        "out = exp(velocity), on a GPU: what warp() with add_flow does again and again.");
}

}  // namespace bind
}  // namespace ek
