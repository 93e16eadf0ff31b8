#include "common/simd_device-inl.h"
// The vocabulary above decides what the bodies below are compiled for.
#include <vector>

#include "device.h"
#include "diffusion/diffusion_voxel-inl.h"
#include "srad/srad_voxel-inl.h"
#include "total_variation/total_variation_voxel-inl.h"

namespace test {
namespace {

const auto run = [](const auto& voxel) { every_thread(voxel, voxel); };

const auto total = [](const ek::device::DeviceStencil& stencil, int which) {
  double sum = 0.0;
  for (int64_t row = 0; row < stencil.rows(); ++row) sum += stencil.sums[2 * row + which];
  return sum;
};

std::vector<int64_t> memory(int64_t bytes) { return std::vector<int64_t>(static_cast<size_t>(bytes / 8)); }

}  // namespace

void as_device(const ek::TotalVariation& args) {
  ek::check(args);
  auto space = memory(ek::device::total_variation_bytes(args));
  ek::device::total_variation_passes(args, reinterpret_cast<char*>(space.data()), run, total);
}

void as_device(const ek::Diffusion& args) {
  ek::check(args);
  auto space = memory(ek::device::diffusion_bytes(args));
  ek::device::diffusion_passes(args, reinterpret_cast<char*>(space.data()), run, total);
}

void as_device(const ek::Srad& args) {
  ek::check(args);
  auto space = memory(ek::device::srad_bytes(args));
  ek::device::srad_passes(args, reinterpret_cast<char*>(space.data()), run, total);
}

}  // namespace test
