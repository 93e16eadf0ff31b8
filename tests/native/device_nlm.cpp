#include "common/simd_device-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "device.h"
#include "nlm/nlm.h"
#include "nlm/nlm_voxel-inl.h"

namespace test {

void as_device(const ek::NonLocalMeans& args) {
  ek::device::with_nlm_voxel(ek::plan_nlm(args), [](const auto& voxel) { every_thread(voxel, voxel); });
}

}  // namespace test
