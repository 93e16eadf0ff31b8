// Filtering along an axis.
#include "filter/filter.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <numeric>
#include <vector>

#include "bind/bind.h"
#include "bind/gpu.h"

namespace ek {
namespace bind {
namespace {

using Indices = py::array_t<int32_t, py::array::c_style>;
using Weights = py::array_t<float, py::array::c_style>;

// Product of the lengths of axes [begin, end).
int64_t product(const py::array& array, py::ssize_t begin, py::ssize_t end) {
  return std::accumulate(array.shape() + begin, array.shape() + end, int64_t{1}, std::multiplies<int64_t>());
}

// Both arrays C-contiguous and of the same shape but for one axis.
void filter_axis(const py::array& in, const py::array& out, py::ssize_t axis, const Indices& base,
                 const Weights& scale, const Indices& index, const Weights& weight, int threads,
                 const std::string& isa) {
  require(in.ndim() == out.ndim() && axis >= 0 && axis < in.ndim(), "in, out and axis do not go together");
  for (const auto& array : {in, out}) {
    require((array.flags() & py::array::c_style) != 0, "in and out must be C-contiguous");
  }
  require(out.writeable(), "out must be writeable");
  for (py::ssize_t i = 0; i < in.ndim(); ++i) {
    require(i == axis || in.shape(i) == out.shape(i), "in and out differ in another axis");
  }
  AxisFilter args;
  args.in = in.data();
  args.out = const_cast<void*>(out.data());
  args.in_type = type_of("in", in);
  args.out_type = type_of("out", out);
  args.outer = product(in, 0, axis);
  args.inner = product(in, axis + 1, in.ndim());
  args.in_size = in.shape(axis);
  args.out_size = out.shape(axis);
  require(base.ndim() == 1 && scale.ndim() == 1 && index.ndim() == 2 && weight.ndim() == 2,
          "base and scale must be lines, index and weight tables");
  args.columns = base.shape(0);
  args.taps = index.shape(0);
  require(scale.shape(0) == args.columns && index.shape(1) == args.columns && weight.shape(0) == args.taps &&
              weight.shape(1) == args.columns,
          "the tables differ in shape");
  args.base = base.data();
  args.scale = scale.data();
  args.index = index.data();
  args.weight = weight.data();
  run(ek::filter_axis, gpu::filter_axis, args, threads, isa);
}

FilterStage stage_of(const py::tuple& given) {
  require(given.size() == 5, "a stage is axis, base, scale, index and weight");
  // As they are: what a conversion makes would be gone when the kernel runs.
  for (size_t i : {1, 3}) require(py::isinstance<Indices>(given[i]), "base and index must be int32");
  for (size_t i : {2, 4}) require(py::isinstance<Weights>(given[i]), "scale and weight must be float32");
  const auto base = given[1].cast<Indices>(), index = given[3].cast<Indices>();
  const auto scale = given[2].cast<Weights>(), weight = given[4].cast<Weights>();
  require(base.ndim() == 1 && scale.ndim() == 1 && index.ndim() == 2 && weight.ndim() == 2,
          "base and scale must be lines, index and weight tables");
  FilterStage stage;
  stage.axis = given[0].cast<int>();
  stage.columns = base.shape(0);
  stage.taps = index.shape(0);
  require(scale.shape(0) == stage.columns && index.shape(1) == stage.columns &&
              weight.shape(0) == stage.taps && weight.shape(1) == stage.columns,
          "the tables differ in shape");
  stage.base = base.data();
  stage.scale = scale.data();
  stage.index = index.data();
  stage.weight = weight.data();
  return stage;
}

// Arrays [outer, axis 0, axis 1, axis 2, inner]. The stages hold their tables meanwhile.
void filter_axes(const py::array& in, const py::array& out, const std::vector<py::tuple>& stages, int threads,
                 const std::string& isa) {
  FilterChain args;
  require(in.ndim() == 5 && out.ndim() == 5, "in and out must have five axes");
  for (const auto& array : {in, out}) {
    require((array.flags() & py::array::c_style) != 0, "in and out must be C-contiguous");
  }
  require(out.writeable(), "out must be writeable");
  require(stages.size() <= kMaxStages, "a chain has 1 to 3 stages");
  args.in = in.data();
  args.out = const_cast<void*>(out.data());
  args.in_type = type_of("in", in);
  args.out_type = type_of("out", out);
  args.outer = in.shape(0);
  args.inner = in.shape(4);
  int64_t size[kMaxStages];
  for (int axis = 0; axis < kMaxStages; ++axis) size[axis] = args.size[axis] = in.shape(axis + 1);
  for (const py::tuple& given : stages) {
    FilterStage& stage = args.stage[args.stages++] = stage_of(given);
    require(stage.axis >= 0 && stage.axis < kMaxStages, "axis must be 0, 1 or 2");
    size[stage.axis] = stage.size = out.shape(stage.axis + 1);
  }
  require(
      out.shape(0) == args.outer && out.shape(4) == args.inner && std::equal(size, size + 3, out.shape() + 1),
      "in and out differ in an axis that no stage changes");
  const Memory memory(threads, isa == "cuda" ? 0 : plan_chain(args).workers.bytes);
  args.workspace = memory.workspace;
  run(ek::filter_axes, gpu::filter_axes, args, threads, isa);
}

}  // namespace

void add_filter(py::module_& m) {
  m.def("filter_axes", &filter_axes, py::arg("image").noconvert(), py::arg("out").noconvert(),
        py::arg("stages"), py::kw_only(), py::arg("threads") = 1, py::arg("isa") = "",
        "filter_axis() along axes 1 to 3 of five, a stage (axis - 1, base, scale, index, weight) each.");
  m.def("filter_axis", &filter_axis, py::arg("image").noconvert(), py::arg("out").noconvert(),
        py::arg("axis"), py::arg("base").noconvert(), py::arg("scale").noconvert(),
        py::arg("index").noconvert(), py::arg("weight").noconvert(), py::kw_only(), py::arg("threads") = 1,
        py::arg("isa") = "",
        "out[p] = scale[p] * v + sum over k of weight[k, p] * (image[index[k, p]] - v), v = image[base[p]].");
}

}  // namespace bind
}  // namespace ek
