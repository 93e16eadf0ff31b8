#include "adjoint/adjoint_cuda.h"
#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "adjoint/adjoint.h"
#include "adjoint/adjoint_voxel-inl.h"

namespace ek {
namespace cuda {

int64_t adjoint_workspace_bytes(const Adjoint& args) {
  return device::adjoint_passes(plan_adjoint(args), nullptr, Launch{nullptr});
}

void warp_adjoint(const Adjoint& args, void* workspace, Stream stream) {
  const AdjointPlan plan = plan_adjoint(args);
  const int64_t bytes = device::adjoint_passes(plan, nullptr, Launch{stream});
  check(cudaMemsetAsync(workspace, 0, bytes, stream));
  device::adjoint_passes(plan, static_cast<char*>(workspace), Launch{stream});
}

}  // namespace cuda
}  // namespace ek
