// Non-local means.
#include "nlm/nlm.h"

#include <pybind11/stl.h>

#include <optional>

#include "bind/bind.h"
#include "bind/gpu.h"

namespace ek {
namespace bind {
namespace {

void non_local_means(const py::array& image, const py::array& out, const py::array& sigma,
                     const std::optional<py::array>& mask, int patch_radius, int search_radius,
                     float strength, bool blockwise, bool rician, float floor, const std::string& boundary,
                     int threads, const std::string& isa) {
  require(
      image.ndim() == out.ndim() && image.ndim() == sigma.ndim() && (!mask || image.ndim() == mask->ndim()),
      "image, out, sigma and mask differ in rank");
  NonLocalMeans args;
  args.image = tensor("image", image, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  args.sigma = tensor("sigma", sigma, Use::kRead);
  if (mask) args.mask = tensor("mask", *mask, Use::kRead);
  args.dims = static_cast<int>(image.ndim()) - 2;
  args.patch_radius = patch_radius;
  args.search_radius = search_radius;
  args.strength = strength;
  args.blockwise = blockwise;
  args.rician = rician;
  args.floor = floor;
  args.boundary = boundary_of(boundary);
  threads_of(threads);
  const Memory memory(threads, nlm_workspace_bytes(args));
  args.workspace = memory.workspace;
  run(ek::non_local_means, gpu::non_local_means, args, threads, isa);
}

}  // namespace

void add_nlm(py::module_& m) {
  m.def("non_local_means", &non_local_means, py::arg("image").noconvert(), py::arg("out").noconvert(),
        py::arg("sigma").noconvert(), py::arg("mask").noconvert() = py::none(), py::kw_only(),
        py::arg("patch_radius") = 1, py::arg("search_radius") = 5, py::arg("strength") = 1.0f,
        py::arg("blockwise") = false, py::arg("rician") = false, py::arg("floor") = 0.0f,
        py::arg("boundary") = "mirror", py::arg("threads") = 1, py::arg("isa") = "",
        "out[p] = the average of image[q] around p, weighted by how much their surroundings are alike.");
}

}  // namespace bind
}  // namespace ek
