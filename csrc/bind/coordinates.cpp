// Operators that sample an image where something else than a displacement says.
#include "bind/bind.h"
#include "sample/sample.h"

namespace ek {
namespace bind {
namespace {

// Vectors [N, D, H, W, 3] or [N, H, W, 2], C-contiguous: a tensor whose channels are innermost.
Tensor vectors(const char* name, const py::array& array) {
  const std::string label = name;
  const auto rank = array.ndim();
  require(rank == 4 || rank == 5, label + " must have shape [N, D, H, W, 3] or [N, H, W, 2]");
  require((array.flags() & py::array::c_style) != 0, label + " must be C-contiguous");
  require(py::isinstance<py::array_t<float>>(array), label + " must be float32");
  Tensor tensor;
  tensor.channels_last = true;
  tensor.data = const_cast<void*>(array.data());
  tensor.n = array.shape(0);
  tensor.c = array.shape(rank - 1);
  tensor.d = rank == 5 ? array.shape(1) : 1;
  tensor.h = array.shape(rank - 3);
  tensor.w = array.shape(rank - 2);
  return tensor;
}

Boundary boundary_of_padding(const std::string& padding, int order, bool align_corners) {
  if (padding == "zeros") return Boundary::kZero;
  if (padding == "border") return Boundary::kEdge;
  require(padding == "reflection", "padding must be 'zeros', 'border' or 'reflection', got '" + padding + "'");
  // Folded coordinates need no more than clamping, but for the taps of a cubic.
  if (order != 3) return Boundary::kEdge;
  return align_corners ? Boundary::kMirror : Boundary::kReflect;
}

Sample sample_of(const py::array& image, const py::array& out, int order) {
  require(image.ndim() == out.ndim(), "image and out differ in rank");
  Sample args;
  args.image = tensor("image", image, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  // A result of one voxel lies in memory both ways.
  if (args.out.voxels() == 1) args.out.channels_last = args.image.channels_last;
  args.dims = static_cast<int>(image.ndim()) - 2;
  args.order = order;
  return args;
}

void run(const Sample& args, int threads, const std::string& isa) {
  const Isa chosen = isa_of(isa);
  const Parallel parallel = threads_of(threads);
  py::gil_scoped_release unlocked;
  sample(args, chosen, parallel);
}

void grid_sample(const py::array& image, const py::array& grid, const py::array& out, int order,
                 const std::string& padding, bool align_corners, float cubic, int threads,
                 const std::string& isa) {
  require(image.ndim() == grid.ndim(), "image and grid differ in rank");
  Sample args = sample_of(image, out, order);
  args.source = Source::kGrid;
  args.coordinates = vectors("grid", grid);
  args.boundary = boundary_of_padding(padding, order, align_corners);
  args.fold = padding == "reflection";
  args.align_corners = align_corners;
  args.cubic = cubic;
  run(args, threads, isa);
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
  run(args, threads, isa);
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
}

}  // namespace bind
}  // namespace ek
