#include "common/simd_device-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "device.h"
#include "sample/sample.h"
#include "sample/sample_voxel-inl.h"

namespace test {

void as_device(const ek::Sample& args) {
  ek::device::with_sample_voxel(ek::plan_sample(args), [](const auto& voxel) { every_thread(voxel, voxel); });
}

}  // namespace test
