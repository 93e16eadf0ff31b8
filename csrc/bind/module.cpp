// edgekit._C: the kernels as Python functions over NumPy arrays. The only file that knows Python or reads the
// environment. Arrays are taken as they are: a wrong dtype or layout is refused, never converted.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "common/error.h"
#include "warp/warp.h"

namespace py = pybind11;

namespace {

// The instruction set of this process: EDGEKIT_ISA if set, else the best one. Decided at the first call.
ek::Isa process_isa() {
  static const ek::Isa isa = [] {
    const char* forced = std::getenv("EDGEKIT_ISA");
    try {
      return ek::choose_isa(forced ? forced : "");
    } catch (const ek::Error& error) {
      throw ek::Error(std::string("EDGEKIT_ISA: ") + error.what());
    }
  }();
  return isa;
}

ek::Boundary boundary_of(const std::string& name) {
  if (name == "zero") return ek::Boundary::kZero;
  if (name == "edge") return ek::Boundary::kEdge;
  throw ek::Error("boundary must be 'zero' or 'edge', got '" + name + "'");
}

// T is const for an input; a writeable view of a read-only array is refused.
template <class T>
ek::Volume<T> view(const char* name, const py::array& array) {
  const std::string label = name;
  ek::require(py::isinstance<py::array_t<float>>(array), label + " must be float32");
  ek::require((array.flags() & py::array::c_style) != 0, label + " must be C-contiguous");
  ek::require(std::is_const<T>::value || array.writeable(), label + " must be writeable");
  const auto rank = array.ndim();
  ek::require(rank == 4 || rank == 5, label + " must have shape [N, C, D, H, W] or [N, C, H, W]");
  ek::Volume<T> volume;
  volume.data = static_cast<T*>(const_cast<void*>(array.data()));
  volume.n = array.shape(0);
  volume.c = array.shape(1);
  volume.d = rank == 5 ? array.shape(2) : 1;
  volume.h = array.shape(rank - 2);
  volume.w = array.shape(rank - 1);
  return volume;
}

void warp(const py::array& image, const py::array& flow, const py::array& out, int order,
          const std::string& boundary, bool add_image, int threads, const std::string& isa) {
  ek::require(image.ndim() == flow.ndim() && image.ndim() == out.ndim(),
              "image, flow and out differ in rank");
  ek::require(threads >= 1, "threads must be at least 1, got " + std::to_string(threads));
  ek::Warp args;
  args.image = view<const float>("image", image);
  args.flow = view<const float>("flow", flow);
  args.out = view<float>("out", out);
  args.dims = static_cast<int>(image.ndim()) - 2;
  args.order = order;
  args.boundary = boundary_of(boundary);
  args.add_image = add_image;
  const ek::Isa chosen = isa.empty() ? process_isa() : ek::choose_isa(isa);
  py::gil_scoped_release unlocked;
  ek::warp(args, chosen, ek::pool(threads));
}

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (ek::Isa isa : ek::available_isas()) names.emplace_back(ek::isa_name(isa));
  return names;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of edgekit. Bad arguments raise ValueError; edgekit.kernels is the public face.";
  m.def("isas", &isas, "Instruction sets compiled in and supported here, from the plainest to the best.");
  m.def(
      "isa", [] { return ek::isa_name(process_isa()); },
      "The instruction set in use (EDGEKIT_ISA forces one).");
  m.def("warp", &warp, py::arg("image").noconvert(), py::arg("flow").noconvert(), py::arg("out").noconvert(),
        py::kw_only(), py::arg("order") = 1, py::arg("boundary") = "edge", py::arg("add_image") = false,
        py::arg("threads") = 1, py::arg("isa") = "",
        "out[p] = image[p + flow[p]], plus image[p] with add_image. Writes out; releases the GIL.");
}
