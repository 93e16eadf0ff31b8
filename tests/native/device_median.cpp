#include "common/simd_device-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "device.h"
#include "median/median.h"
#include "median/median_voxel-inl.h"

namespace test {

void as_device(const ek::Median& args) {
  ek::check(args);
  ek::device::with_median_voxel(args, [&](const auto& voxel) {
    every_thread(voxel, [&](uint32_t row, uint32_t item) { voxel(row, item); });
  });
}

}  // namespace test
