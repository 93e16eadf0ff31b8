// The determinant of a displacement's Jacobian.
#include "jacobian/jacobian.h"

#include <pybind11/stl.h>

#include <optional>

#include "bind/bind.h"
#include "bind/gpu.h"

namespace ek {
namespace bind {
namespace {

int64_t* counts_of(const char* name, py::array& array, int64_t length) {
  const std::string label = name;
  require(py::isinstance<py::array_t<int64_t>>(array) && array.ndim() == 1 && array.shape(0) == length &&
              (array.flags() & py::array::c_style) != 0,
          label + " must be contiguous int64 [N]");
  require(array.writeable(), label + " must be writeable");
  return static_cast<int64_t*>(array.mutable_data());
}

void jacobian_determinant(const py::array& flow, const std::optional<py::array>& out,
                          std::optional<py::array> folding, int threads, const std::string& isa) {
  require(!out || out->ndim() == flow.ndim(), "flow and out differ in rank");
  JacobianDeterminant args;
  args.flow = tensor("flow", flow, Use::kRead);
  if (out) args.out = tensor("out", *out, Use::kWrite);
  if (folding) args.folding = counts_of("folding", *folding, args.flow.n);
  args.dims = static_cast<int>(flow.ndim()) - 2;
  run(ek::jacobian_determinant, gpu::jacobian_determinant, args, threads, isa);
}

}  // namespace

void add_jacobian(py::module_& m) {
  m.def("jacobian_determinant", &jacobian_determinant, py::arg("flow").noconvert(),
        py::arg("out").noconvert() = py::none(), py::arg("folding").noconvert() = py::none(), py::kw_only(),
        py::arg("threads") = 1, py::arg("isa") = "",
        "out[n, 0, p] = det(I + dflow/dp); folding[n] = how many of them are not positive. One may be None.");
}

}  // namespace bind
}  // namespace ek
