// Operators that registration needs beside sampling: derivatives of a warp, inversion, labels.
#include <pybind11/stl.h>

#include <optional>
#include <vector>

#include "adjoint/adjoint.h"
#include "bind/bind.h"
#include "bind/gpu.h"
#include "gradient/gradient.h"
#include "inverse/inverse.h"
#include "labels/labels.h"

namespace ek {
namespace bind {
namespace {

int dims_of(const py::array& array) { return static_cast<int>(array.ndim()) - 2; }

void require_rank(int dims, std::initializer_list<const py::array*> arrays) {
  for (const py::array* array : arrays) require(dims_of(*array) == dims, "the arrays differ in rank");
}

void warp_adjoint(const py::array& values, const py::array& flow, const py::array& out,
                  const std::optional<py::array>& count, int order, const std::string& boundary, int threads,
                  const std::string& isa) {
  Adjoint args;
  args.dims = dims_of(values);
  require_rank(args.dims, {&flow, &out, count ? &*count : &out});
  args.values = tensor("values", values, Use::kRead);
  args.flow = tensor("flow", flow, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  if (count) args.counts = tensor("count", *count, Use::kWrite);
  args.order = order;
  args.boundary = boundary_of(boundary);
  check_size("values", args.values);
  std::vector<Reach> reaches(static_cast<size_t>(adjoint_reaches(args.values)));
  args.reaches = reaches.data();
  run(ek::warp_adjoint, gpu::warp_adjoint, args, threads, isa);
}

void warp_gradient(const py::array& cotangent, const py::array& image, const py::array& flow,
                   const py::array& out, int order, const std::string& boundary, int threads,
                   const std::string& isa) {
  Gradient args;
  args.dims = dims_of(image);
  require_rank(args.dims, {&cotangent, &flow, &out});
  args.cotangent = tensor("cotangent", cotangent, Use::kRead);
  args.image = tensor("image", image, Use::kRead);
  args.flow = tensor("flow", flow, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  args.order = order;
  args.boundary = boundary_of(boundary);
  run(ek::warp_gradient, gpu::warp_gradient, args, threads, isa);
}

void invert(const py::array& flow, const py::array& out, py::array residual, int iterations, float tolerance,
            const std::string& boundary, int threads, const std::string& isa) {
  Inverse args;
  args.dims = dims_of(flow);
  require_rank(args.dims, {&out});
  args.flow = tensor("flow", flow, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  require(py::isinstance<py::array_t<float>>(residual) && residual.ndim() == 1 &&
              residual.shape(0) == args.flow.n && (residual.flags() & py::array::c_style) != 0,
          "residual must be contiguous float32 [N]");
  require(residual.writeable(), "residual must be writeable");
  args.residual = static_cast<float*>(residual.mutable_data());
  args.iterations = iterations;
  args.tolerance = tolerance;
  args.boundary = boundary_of(boundary);
  run(ek::invert, gpu::invert, args, threads, isa);
}

// The type of the same size that stands for labels of any integer type.
Type label_type(const char* name, const py::array& array) {
  const py::dtype type = array.dtype();
  const bool integer = type.kind() == 'b' || type.kind() == 'i' || type.kind() == 'u';
  require(integer && type.byteorder() != '>',
          std::string(name) + " must be integers of this machine's order");
  switch (type.itemsize()) {
    case 1:
      return Type::kUint8;
    case 2:
      return Type::kInt16;
    case 4:
      return Type::kInt32;
    default:
      return Type::kInt64;
  }
}

void warp_labels(const py::array& labels, const py::array& flow, const py::array& out, bool linear,
                 const std::string& boundary, int threads, const std::string& isa) {
  Labels args;
  args.dims = dims_of(labels);
  require_rank(args.dims, {&flow, &out});
  require(labels.dtype().is(out.dtype()) || labels.dtype().equal(out.dtype()),
          "labels and out differ in type");
  args.labels = tensor("labels", labels, Use::kRead, label_type("labels", labels));
  args.flow = tensor("flow", flow, Use::kRead);
  args.out = tensor("out", out, Use::kWrite, label_type("out", out));
  args.is_signed = labels.dtype().kind() == 'i';
  args.linear = linear;
  args.boundary = boundary_of(boundary);
  run(ek::warp_labels, gpu::warp_labels, args, threads, isa);
}

}  // namespace

void add_registration(py::module_& m) {
  m.def("warp_adjoint", &warp_adjoint, py::arg("values").noconvert(), py::arg("flow").noconvert(),
        py::arg("out").noconvert(), py::arg("count").noconvert() = py::none(), py::kw_only(),
        py::arg("order") = 1, py::arg("boundary") = "edge", py::arg("threads") = 1, py::arg("isa") = "",
        "out = the transpose of warping by flow, applied to values; count = the same of ones, or None.");
  m.def("warp_gradient", &warp_gradient, py::arg("cotangent").noconvert(), py::arg("image").noconvert(),
        py::arg("flow").noconvert(), py::arg("out").noconvert(), py::kw_only(), py::arg("order") = 1,
        py::arg("boundary") = "edge", py::arg("threads") = 1, py::arg("isa") = "",
        "out = the derivative of sum(cotangent * warp(image, flow)) by flow.");
  m.def("invert", &invert, py::arg("flow").noconvert(), py::arg("out").noconvert(),
        py::arg("residual").noconvert(), py::kw_only(), py::arg("iterations") = 20,
        py::arg("tolerance") = 1e-3f, py::arg("boundary") = "edge", py::arg("threads") = 1,
        py::arg("isa") = "", "out[p] = -flow(p + out[p]), nearly; residual[n] = how far from it.");
  m.def("warp_labels", &warp_labels, py::arg("labels").noconvert(), py::arg("flow").noconvert(),
        py::arg("out").noconvert(), py::kw_only(), py::arg("linear") = false, py::arg("boundary") = "edge",
        py::arg("threads") = 1, py::arg("isa") = "",
        "out[p] = the label of the voxel nearest to p + flow[p], or of the largest linear weight there.");
}

}  // namespace bind
}  // namespace ek
