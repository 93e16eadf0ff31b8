#include "common/simd_device-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "bilateral/bilateral.h"
#include "bilateral/bilateral_voxel-inl.h"
#include "device.h"
#include "gaussian/gaussian.h"
#include "gaussian/gaussian_voxel-inl.h"
#include "guided/guided.h"
#include "guided/guided_voxel-inl.h"

namespace test {

void as_device(const ek::Bilateral& args) {
  ek::check(args);
  ek::device::with_bilateral_voxel(
      args, [](const auto& voxel) { every_thread(voxel, [&](uint32_t row, uint32_t x) { voxel(row, x); }); });
}

void as_device(const ek::Gaussian& args) {
  ek::check(args);
  ek::each_pass(args, [](const ek::AxisPass& pass) {
    const ek::device::GaussianVoxel voxel{pass};
    every_thread(voxel, [&](uint32_t row, uint32_t x) { voxel(row, x); });
  });
}

void as_device(const ek::Guided& args) {
  ek::check(args);
  ek::each_pass(args, [](const ek::GuidedPass& pass) {
    ek::device::with_guided_voxel(pass, [](const auto& voxel) {
      every_thread(voxel, [&](uint32_t row, uint32_t x) { voxel(row, x); });
    });
  });
}

}  // namespace test
