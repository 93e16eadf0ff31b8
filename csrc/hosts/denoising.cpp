#include "hosts/denoising.h"

#include <algorithm>
#include <cmath>
#include <thread>

#include "bilateral/bilateral.h"
#include "hosts/arrays.h"
#include "nlm/nlm.h"

namespace ek {
namespace hosts {
namespace {

constexpr double kLog2E = 1.4426950408889634;
constexpr int64_t kMaxRadius = 100;    // of a bilateral window
constexpr float kLeastSigma = 1e-15f;  // whose square is a normal number

Shape denoised(const Shape* inputs) {
  require(inputs[0].rank == 4 || inputs[0].rank == 5,
          "image must have 4 or 5 axes, got " + std::to_string(inputs[0].rank));
  return inputs[0];
}

// How many workers can be of use. A host that does not say how many threads it has has no more than the
// machine.
int workers_for(const Parallel& parallel, int64_t tasks) {
  const int64_t threads = parallel.threads > 0 ? parallel.threads : std::thread::hardware_concurrency();
  return static_cast<int>(std::max<int64_t>(1, std::min(threads, tasks)));
}

void run_non_local_means(const Call& call) {
  float sigma = call.values[0].f;
  NonLocalMeans args = nlm_arguments(call, &sigma);
  const Workers needs = plan_nlm(args).workers;
  const int workers = workers_for(call.parallel, needs.tasks);
  const Memory memory(workers, needs.bytes);
  args.workspace = memory.workspace;
  non_local_means(args, call.isa, call.parallel);
}

void run_bilateral(const Call& call) {
  const Window window = bilateral_window(dims_of(call.output.shape), call.values);
  Bilateral args = bilateral_arguments(call, window);
  const Workers use = needs(args);
  const int workers = workers_for(call.parallel, use.tasks);
  const Memory memory(workers, use.bytes);
  args.workspace = memory.workspace;
  bilateral(args, call.isa, call.parallel);
}

void require_between(const char* name, int64_t value, int64_t low, int64_t high) {
  require(value >= low && value <= high, std::string(name) + " must be " + std::to_string(low) + " to " +
                                             std::to_string(high) + ", got " + std::to_string(value));
}

void check_choice(const char* name, const std::string& value, const char* first, const char* second) {
  require(value == first || value == second,
          std::string(name) + " must be '" + first + "' or '" + second + "', got '" + value + "'");
}

void check_noise_sigma(const Value& value) {
  require(std::isfinite(value.f) && value.f >= 0.0f,
          "sigma must be finite and not negative, got " + std::to_string(value.f));
}

void check_patch_radius(const Value& value) { require_between("patch_radius", value.i, 1, kMaxPatchRadius); }

void check_search_radius(const Value& value) {
  require_between("search_radius", value.i, 1, kMaxSearchRadius);
}

void check_strength(const Value& value) {
  require(value.f >= 0.01f && value.f <= 100.0f,
          "strength must be 0.01 to 100, got " + std::to_string(value.f));
}

void check_method(const Value& value) { check_choice("method", value.s, "pointwise", "blockwise"); }

void check_noise(const Value& value) { check_choice("noise", value.s, "gaussian", "rician"); }

void check_sigma_space(const Value& value) {
  require(std::isfinite(value.f) && value.f >= kLeastSigma, "sigma_space must be finite and at least 1e-15");
}

void check_sigma_range(const Value& value) {
  require(std::isfinite(value.f) && value.f >= kLeastSigma, "sigma_range must be finite and at least 1e-15");
}

void check_radius(const Value& value) { require_between("radius", value.i, 1, kMaxRadius); }

}  // namespace

NonLocalMeans nlm_arguments(const Call& call, float* sigma) {
  const Value* values = call.values;
  NonLocalMeans args;
  args.image = planar(call.inputs[0]);
  args.out = planar(call.output);
  args.dims = dims_of(call.output.shape);
  args.sigma.data = sigma;
  args.sigma.n = args.sigma.c = args.sigma.d = args.sigma.h = args.sigma.w = 1;
  args.patch_radius = static_cast<int>(values[1].i);
  args.search_radius = static_cast<int>(values[2].i);
  args.strength = values[3].f;
  args.blockwise = values[4].s == "blockwise";
  args.rician = values[5].s == "rician";
  args.boundary = boundary_of(values[6].s);
  return args;
}

Window bilateral_window(int dims, const Value* values) {
  const int radius = static_cast<int>(values[2].i);
  const double sigma = values[0].f;
  Window found;
  for (int z = dims == 3 ? radius : 0; z >= 0; --z) {
    for (int y = radius; y >= (z > 0 ? -radius : 0); --y) {
      for (int x = z > 0 || y > 0 ? -radius : 1; x <= radius; ++x) {
        const int64_t squared = int64_t{z} * z + int64_t{y} * y + int64_t{x} * x;
        if (squared > int64_t{radius} * radius) continue;
        found.offsets.insert(found.offsets.end(), {z, y, x});
        found.weights.push_back(
            static_cast<float>(std::exp(-0.5 * (static_cast<double>(squared) / sigma) / sigma)));
      }
    }
  }
  return found;
}

Bilateral bilateral_arguments(const Call& call, const Window& window) {
  const double sigma_range = call.values[1].f;
  const int radius = static_cast<int>(call.values[2].i), dims = dims_of(call.output.shape);
  Bilateral args;
  args.image = planar(call.inputs[0]);
  args.out = planar(call.output);
  args.offsets = window.offsets.data();
  args.weights = window.weights.data();
  args.pairs = static_cast<int64_t>(window.weights.size());
  for (int axis = 3 - dims; axis < 3; ++axis) args.reach[axis] = radius;
  args.decay = static_cast<float>(-0.5 * kLog2E / sigma_range / sigma_range);
  args.boundary = boundary_of(call.values[3].s);
  return args;
}

std::vector<Operator> denoising_operators() {
  const Attribute boundary{"boundary", Kind::kString, false, {0, 0.0f, "mirror"}, check_boundary};
  return {
      {"NonLocalMeans",
       {"image"},
       "denoised",
       {{"sigma", Kind::kFloat, true, {}, check_noise_sigma},
        {"patch_radius", Kind::kInt, false, {1, 0.0f, ""}, check_patch_radius},
        {"search_radius", Kind::kInt, false, {5, 0.0f, ""}, check_search_radius},
        {"strength", Kind::kFloat, false, {0, 1.0f, ""}, check_strength},
        {"method", Kind::kString, false, {0, 0.0f, "pointwise"}, check_method},
        {"noise", Kind::kString, false, {0, 0.0f, "gaussian"}, check_noise},
        boundary},
       denoised,
       EK_ON_PROCESSOR(run_non_local_means)},
      {"Bilateral",
       {"image"},
       "denoised",
       {{"sigma_space", Kind::kFloat, true, {}, check_sigma_space},
        {"sigma_range", Kind::kFloat, true, {}, check_sigma_range},
        {"radius", Kind::kInt, true, {}, check_radius},
        boundary},
       denoised,
       EK_ON_PROCESSOR(run_bilateral)},
  };
}

}  // namespace hosts
}  // namespace ek
