// Operators that sample an image where something else than a displacement says.
#include "bind/bind.h"
#include "bind/gpu.h"
#include "points/points.h"
#include "sample/sample.h"

namespace ek {
namespace bind {
namespace {

// Vectors [N, D, H, W, 3], [N, H, W, 2] or [N, P, 3 or 2], C-contiguous: a tensor whose channels are
// innermost.
Tensor vectors(const char* name, const py::array& array, Use use) {
  const std::string label = name;
  const auto rank = array.ndim();
  require(rank >= 3 && rank <= 5, label + " must have 3 to 5 axes, the last one being components");
  require((array.flags() & py::array::c_style) != 0, label + " must be C-contiguous");
  require(py::isinstance<py::array_t<float>>(array), label + " must be float32");
  require(use == Use::kRead || array.writeable(), label + " must be writeable");
  Tensor tensor;
  tensor.channels_last = true;
  tensor.data = const_cast<void*>(array.data());
  tensor.n = array.shape(0);
  tensor.c = array.shape(rank - 1);
  tensor.d = rank == 5 ? array.shape(1) : 1;
  tensor.h = rank >= 4 ? array.shape(rank - 3) : 1;
  tensor.w = array.shape(rank - 2);
  return tensor;
}

Sample sample_of(const py::array& image, const py::array& out, int order) {
  require(image.ndim() == out.ndim(), "image and out differ in rank");
  Sample args;
  args.image = tensor("image", image, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  // One voxel lies in memory both ways.
  if (args.out.voxels() == 1) args.out.channels_last = args.image.channels_last;
  if (args.image.voxels() == 1) args.image.channels_last = args.out.channels_last;
  args.dims = static_cast<int>(image.ndim()) - 2;
  args.order = order;
  return args;
}

void grid_sample(const py::array& image, const py::array& grid, const py::array& out, int order,
                 const std::string& padding, bool align_corners, float cubic, int threads,
                 const std::string& isa) {
  require(image.ndim() == grid.ndim(), "image and grid differ in rank");
  Sample args = sample_of(image, out, order);
  args.source = Source::kGrid;
  args.coordinates = vectors("grid", grid, Use::kRead);
  args.boundary = boundary_of_padding(padding, order, align_corners);
  args.fold = padding == "reflection";
  args.align_corners = align_corners;
  args.cubic = cubic;
  run(ek::sample, gpu::sample, args, threads, isa);
}

void sample_affine(const py::array& image, const py::array_t<double, py::array::c_style>& matrix,
                   const py::array& out, int order, const std::string& boundary, int threads,
                   const std::string& isa) {
  Sample args = sample_of(image, out, order);
  args.source = Source::kAffine;
  require(matrix.ndim() == 2 && matrix.shape(0) == args.dims && matrix.shape(1) == args.dims + 1,
          "matrix must have shape [dims, dims + 1]");
  const int skip = 3 - args.dims;
  for (int row = skip; row < 3; ++row) {
    for (int column = skip; column < 4; ++column) {
      args.matrix[row][column] = matrix.at(row - skip, column - skip);
    }
  }
  args.boundary = boundary_of(boundary);
  run(ek::sample, gpu::sample, args, threads, isa);
}

void warp_points(const py::array& points, const py::array& flow, const py::array& out,
                 const std::string& boundary, int threads, const std::string& isa) {
  require(points.ndim() == 3 && out.ndim() == 3, "points and out must have shape [N, P, dims]");
  MovePoints args;
  args.points = vectors("points", points, Use::kRead);
  args.flow = tensor("flow", flow, Use::kRead);
  args.out = vectors("out", out, Use::kWrite);
  args.dims = static_cast<int>(flow.ndim()) - 2;
  args.boundary = boundary_of(boundary);
  run(ek::move_points, gpu::move_points, args, threads, isa);
}

}  // namespace

void add_coordinates(py::module_& m) {
  m.def("grid_sample", &grid_sample, py::arg("image").noconvert(), py::arg("grid").noconvert(),
        py::arg("out").noconvert(), py::kw_only(), py::arg("order") = 1, py::arg("padding") = "zeros",
        py::arg("align_corners") = false, py::arg("cubic") = -0.75f, py::arg("threads") = 1,
        py::arg("isa") = "", "out[p] = image where the normalised grid[p] says.");
  m.def("sample_affine", &sample_affine, py::arg("image").noconvert(), py::arg("matrix").noconvert(),
        py::arg("out").noconvert(), py::kw_only(), py::arg("order") = 1, py::arg("boundary") = "edge",
        py::arg("threads") = 1, py::arg("isa") = "", "out[p] = image[matrix @ (p, 1)].");
  m.def("warp_points", &warp_points, py::arg("points").noconvert(), py::arg("flow").noconvert(),
        py::arg("out").noconvert(), py::kw_only(), py::arg("boundary") = "edge", py::arg("threads") = 1,
        py::arg("isa") = "", "out = point + flow[point], interpolated linearly.");
}

}  // namespace bind
}  // namespace ek
