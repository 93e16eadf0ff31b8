#include "common/simd_device-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "bilateral/bilateral.h"
#include "bilateral/bilateral_voxel-inl.h"
#include "device.h"

namespace test {

void as_device(const ek::Bilateral& args) {
  ek::check(args);
  ek::device::with_bilateral_voxel(
      args, [](const auto& voxel) { every_thread(voxel, [&](uint32_t row, uint32_t x) { voxel(row, x); }); });
}

}  // namespace test
