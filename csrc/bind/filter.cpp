// Filtering along an axis.
#include "filter/filter.h"

#include <cstdint>
#include <functional>
#include <numeric>

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

}  // namespace

void add_filter(py::module_& m) {
  m.def("filter_axis", &filter_axis, py::arg("image").noconvert(), py::arg("out").noconvert(),
        py::arg("axis"), py::arg("base").noconvert(), py::arg("scale").noconvert(),
        py::arg("index").noconvert(), py::arg("weight").noconvert(), py::kw_only(), py::arg("threads") = 1,
        py::arg("isa") = "",
        "out[p] = scale[p] * v + sum over k of weight[k, p] * (image[index[k, p]] - v), v = image[base[p]].");
}

}  // namespace bind
}  // namespace ek
