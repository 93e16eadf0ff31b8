// Median filtering.
#include "median/median.h"

#include <algorithm>

#include "bind/bind.h"
#include "bind/gpu.h"

namespace ek {
namespace bind {
namespace {

void median(const py::array& image, const py::array& out, int radius, const std::string& boundary,
            int threads, const std::string& isa) {
  Median args;
  args.image = tensor("image", image, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  args.dims = image.ndim() == 5 ? 3 : 2;
  args.radius = radius;
  args.boundary = boundary_of(boundary);
  const MedianPlan plan = plan_median(args);
  require(threads >= 1, "threads must be at least 1, got " + std::to_string(threads));
  const int64_t workers = isa == "cuda" ? 1 : std::min<int64_t>(threads, plan.workers.tasks);
  const Memory memory(static_cast<int>(workers), plan.workers.bytes);
  args.workspace = memory.workspace;
  run(ek::median, gpu::median, args, threads, isa);
}

}  // namespace

void add_median(py::module_& m) {
  m.def("median", &median, py::arg("image").noconvert(), py::arg("out").noconvert(), py::kw_only(),
        py::arg("radius") = 1, py::arg("boundary") = "mirror", py::arg("threads") = 1, py::arg("isa") = "",
        "out[p] = median of the voxels around p, 2 * radius + 1 along each axis.");
}

}  // namespace bind
}  // namespace ek
