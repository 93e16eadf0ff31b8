#include "bilateral/bilateral_cuda.h"
#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "bilateral/bilateral_voxel-inl.h"

namespace ek {
namespace cuda {

void bilateral(const Bilateral& args, Stream stream) { device::with_bilateral_voxel(args, Launch{stream}); }

}  // namespace cuda
}  // namespace ek
