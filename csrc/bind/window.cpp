// Operators that sum over a window.
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "bilateral/bilateral.h"
#include "bind/bind.h"
#include "bind/gpu.h"
#include "gaussian/gaussian.h"
#include "guided/guided.h"

namespace ek {
namespace bind {
namespace {

using Offsets = py::array_t<int32_t, py::array::c_style>;
using Weights = py::array_t<float, py::array::c_style>;

// Of a call on so many threads.
Memory memory_for(const Workers& needs, int threads) {
  require(threads >= 1, "threads must be at least 1, got " + std::to_string(threads));
  return Memory(static_cast<int>(std::min<int64_t>(threads, needs.tasks)), needs.bytes);
}

void bilateral(const py::array& image, const py::array& out, const Offsets& offsets, const Weights& weights,
               const std::optional<py::array>& guide, float decay, const std::string& boundary, int threads,
               const std::string& isa) {
  require(image.ndim() == out.ndim() && (!guide || guide->ndim() == image.ndim()),
          "the arrays differ in rank");
  require(offsets.ndim() == 2 && offsets.shape(1) == 3 && weights.ndim() == 1 &&
              weights.shape(0) == offsets.shape(0),
          "offsets must be [pairs, 3] and weights [pairs]");
  Bilateral args;
  args.image = tensor("image", image, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  if (guide) args.guide = tensor("guide", *guide, Use::kRead);
  args.offsets = offsets.data();
  args.weights = weights.data();
  args.pairs = offsets.shape(0);
  for (int64_t i = 0; i < 3 * args.pairs; ++i) {
    int64_t& reach = args.reach[i % 3];
    reach = std::max(reach, std::abs(int64_t{args.offsets[i]}));
  }
  args.decay = decay;
  args.boundary = boundary_of(boundary);
  const Memory memory = memory_for(needs(args), threads);
  args.workspace = memory.workspace;
  run(ek::bilateral, gpu::bilateral, args, threads, isa);
}

void gaussian(const py::array& image, const py::array& out, const Weights& along_z, const Weights& along_y,
              const Weights& along_x, const std::string& boundary, int threads, const std::string& isa) {
  require(image.ndim() == out.ndim(), "image and out differ in rank");
  Gaussian args;
  args.image = tensor("image", image, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  const Weights* weights[] = {&along_z, &along_y, &along_x};
  for (int axis = 0; axis < 3; ++axis) {
    require(weights[axis]->ndim() == 1, "weights must be lines");
    args.weights[axis] = weights[axis]->data();
    args.reach[axis] = weights[axis]->shape(0);
  }
  args.boundary = boundary_of(boundary);
  const Memory memory = memory_for(needs(args), threads);
  args.workspace = memory.workspace;
  std::unique_ptr<float[]> spare;
  if (isa != "cuda" && spares(args) > 0) {
    const int64_t size = args.image.elements();
    spare.reset(new float[static_cast<size_t>(size * spares(args))]);
    for (int i = 0; i < 2; ++i) {
      args.spares[i] = args.image;
      args.spares[i].type = Type::kFloat32;
      args.spares[i].data = spare.get() + i * size;
    }
  }
  run(ek::gaussian, gpu::gaussian, args, threads, isa);
}

void guided_filter(const py::array& image, const py::array& out, const std::optional<py::array>& guide,
                   int64_t radius, float epsilon, const std::string& boundary, int threads,
                   const std::string& isa) {
  require(image.ndim() == out.ndim() && (!guide || guide->ndim() == image.ndim()),
          "the arrays differ in rank");
  Guided args;
  args.image = tensor("image", image, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  if (guide) args.guide = tensor("guide", *guide, Use::kRead);
  for (int axis = 0; axis < 3; ++axis) args.reach[axis] = axis > 0 || image.ndim() == 5 ? radius : 0;
  args.epsilon = epsilon;
  args.boundary = boundary_of(boundary);
  const Memory memory = memory_for(needs(args), threads);
  args.workspace = memory.workspace;
  std::unique_ptr<float[]> spare;
  if (isa != "cuda") spare.reset(new float[static_cast<size_t>(spare_floats(args))]);
  args.spare = spare.get();
  run(ek::guided_filter, gpu::guided_filter, args, threads, isa);
}

}  // namespace

void add_window(py::module_& m) {
  m.def(
      "bilateral", &bilateral, py::arg("image").noconvert(), py::arg("out").noconvert(),
      py::arg("offsets").noconvert(), py::arg("weights").noconvert(),
      py::arg("guide").noconvert() = py::none(), py::kw_only(), py::arg("decay"),
      py::arg("boundary") = "mirror", py::arg("threads") = 1, py::arg("isa") = "",
      "out[p] = image[p] + the mean of image[p + o] - image[p] over the offsets o and their opposites, each "
      "weighted by 2^(decay * (guide[p + o] - guide[p])^2) besides.");
  m.def("gaussian", &gaussian, py::arg("image").noconvert(), py::arg("out").noconvert(),
        py::arg("along_z").noconvert(), py::arg("along_y").noconvert(), py::arg("along_x").noconvert(),
        py::kw_only(), py::arg("boundary") = "mirror", py::arg("threads") = 1, py::arg("isa") = "",
        "Along each axis in turn, v + the sum over k of weights[k - 1] * (v[-k] + v[k] - 2 v).");
  m.def("guided_filter", &guided_filter, py::arg("image").noconvert(), py::arg("out").noconvert(),
        py::arg("guide").noconvert() = py::none(), py::kw_only(), py::arg("radius"), py::arg("epsilon"),
        py::arg("boundary") = "mirror", py::arg("threads") = 1, py::arg("isa") = "",
        "out = mean(a) * guide + mean(b), with a = covariance / (variance + epsilon) and b = mean(image) - "
        "a * mean(guide) in boxes of 2 * radius + 1 voxels along every axis.");
}

}  // namespace bind
}  // namespace ek
