#include "common/simd_device-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "device.h"
#include "jacobian/jacobian.h"
#include "jacobian/jacobian_voxel-inl.h"

namespace test {

void as_device(const ek::JacobianDeterminant& args) {
  ek::check(args);
  for (int64_t n = 0; args.folding && n < args.flow.n; ++n) args.folding[n] = 0;
  ek::device::with_jacobian_voxel(args, [&](const auto& voxel) {
    every_thread(voxel, [&](uint32_t row, uint32_t item) {
      const bool folds = voxel(row, item);
      if (args.folding) args.folding[voxel.sample_of(row)] += folds;
    });
  });
}

}  // namespace test
