// Operators that iterate over the neighbours of every voxel.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bind/bind.h"
#include "bind/gpu.h"
#include "diffusion/diffusion.h"
#include "srad/srad.h"
#include "total_variation/total_variation.h"

namespace ek {
namespace bind {
namespace {

// The memory of one call: what passes leave to each other, and what each thread works in.
class Space {
 public:
  Space(const StencilShape& shape, const Tensor& image, int threads, const std::string& isa)
      : state_(1, isa == "cuda" ? 1 : stencil_state_bytes(shape, image)),
        workers_(threads, isa == "cuda" ? 1 : stencil_worker_bytes(shape, image)) {}

  StencilMemory memory() const { return {state_.workspace.data, workers_.workspace}; }

 private:
  const Memory state_, workers_;
};

float* floats_of(const char* name, std::optional<py::array>& array, int64_t count) {
  if (!array) return nullptr;
  const std::string label = name;
  require(py::isinstance<py::array_t<float>>(*array) && array->size() == count &&
              (array->flags() & py::array::c_style) != 0,
          label + " must be contiguous float32 [N, C]");
  require(array->writeable(), label + " must be writeable");
  return static_cast<float*>(array->mutable_data());
}

TotalVariationMethod method_of(const std::string& name) {
  if (name == "chambolle") return TotalVariationMethod::kChambolle;
  require(name == "primal_dual", "method must be 'chambolle' or 'primal_dual', got '" + name + "'");
  return TotalVariationMethod::kPrimalDual;
}

void total_variation(const py::array& image, const py::array& out, std::optional<py::array> gap,
                     double weight, int iterations, const std::string& method, double tolerance, int threads,
                     const std::string& isa) {
  require(image.ndim() == out.ndim(), "image and out differ in rank");
  TotalVariation args;
  args.image = tensor("image", image, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  args.gap = floats_of("gap", gap, args.image.n * args.image.c);
  args.dims = static_cast<int>(image.ndim()) - 2;
  args.method = method_of(method);
  args.weight = weight;
  args.iterations = iterations;
  args.tolerance = tolerance;
  threads_of(threads);
  check(args);
  const Space space(shape_of(args), args.image, threads, isa);
  args.memory = space.memory();
  run(ek::total_variation, gpu::total_variation, args, threads, isa);
}

DiffusionForm form_of(const std::string& name) {
  if (name == "gradient") return DiffusionForm::kGradient;
  require(name == "curvature", "form must be 'gradient' or 'curvature', got '" + name + "'");
  return DiffusionForm::kCurvature;
}

void anisotropic_diffusion(const py::array& image, const py::array& out, int iterations, double time_step,
                           double conductance, const std::string& form, int interval, int threads,
                           const std::string& isa) {
  require(image.ndim() == out.ndim(), "image and out differ in rank");
  Diffusion args;
  args.image = tensor("image", image, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  args.dims = static_cast<int>(image.ndim()) - 2;
  args.form = form_of(form);
  args.iterations = iterations;
  args.time_step = time_step;
  args.conductance = conductance;
  args.interval = interval;
  threads_of(threads);
  check(args);
  const Space space(shape_of(args), args.image, threads, isa);
  args.memory = space.memory();
  run(ek::diffuse, gpu::anisotropic_diffusion, args, threads, isa);
}

// One of: the coefficient of variation of each channel, or the region it is taken from, a pair per axis.
void srad(const py::array& image, const py::array& out,
          const std::optional<py::array_t<double, py::array::c_style>>& start,
          const std::optional<py::array_t<int64_t, py::array::c_style>>& region, int iterations,
          double time_step, double decay, int threads, const std::string& isa) {
  require(image.ndim() == out.ndim(), "image and out differ in rank");
  Srad args;
  args.image = tensor("image", image, Use::kRead);
  args.out = tensor("out", out, Use::kWrite);
  args.dims = static_cast<int>(image.ndim()) - 2;
  args.iterations = iterations;
  args.time_step = time_step;
  args.decay = decay;
  require(!start || start->size() == args.image.n * args.image.c, "start must have one number per channel");
  if (start) args.start = start->data();
  if (region) {
    require(region->ndim() == 2 && region->shape(0) == args.dims && region->shape(1) == 2,
            "region must have a pair per axis");
    args.has_region = true;
    args.region[0][1] = 1;
    std::copy_n(region->data(), 2 * args.dims, &args.region[3 - args.dims][0]);
  }
  threads_of(threads);
  check(args);
  const Space space(shape_of(args), args.image, threads, isa);
  args.memory = space.memory();
  run(ek::reduce_speckle, gpu::reduce_speckle, args, threads, isa);
}

}  // namespace

void add_stencil(py::module_& m) {
  m.def("srad", &srad, py::arg("image").noconvert(), py::arg("out").noconvert(), py::arg("start").noconvert(),
        py::arg("region").noconvert(), py::kw_only(), py::arg("iterations"), py::arg("time_step"),
        py::arg("decay"), py::arg("threads") = 1, py::arg("isa") = "",
        "out = image after so many steps of speckle-reducing anisotropic diffusion.");
  m.def("anisotropic_diffusion", &anisotropic_diffusion, py::arg("image").noconvert(),
        py::arg("out").noconvert(), py::kw_only(), py::arg("iterations"), py::arg("time_step"),
        py::arg("conductance"), py::arg("form") = "gradient", py::arg("interval") = 1, py::arg("threads") = 1,
        py::arg("isa") = "", "out = image after so many steps of anisotropic diffusion.");
  m.def("total_variation", &total_variation, py::arg("image").noconvert(), py::arg("out").noconvert(),
        py::arg("gap").noconvert() = py::none(), py::kw_only(), py::arg("weight"), py::arg("iterations"),
        py::arg("method") = "chambolle", py::arg("tolerance") = -1.0, py::arg("threads") = 1,
        py::arg("isa") = "", "out = argmin of weight * TV(out) + |out - image|^2 / 2; gap[n, c], relative.");
}

}  // namespace bind
}  // namespace ek
