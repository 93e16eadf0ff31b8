// The device code: a kernel for every entry, by a plain name. nvcc compiles it, and NVRTC, which has no
// headers of CUDA's or of the standard library.
#include "common/grid.h"
#include "hosts/tensorrt/entries.h"

#define EK_ENTRY(name, ...)                                                                    \
  extern "C" __global__ void __launch_bounds__(ek::cuda::kRowThreads* ek::cuda::kRowsPerBlock, \
                                               ek::cuda::kBlocksPerProcessor)                  \
      name(const __VA_ARGS__ voxel, const uint32_t rows, const uint32_t items) {               \
    ek::cuda::voxels_of_thread(voxel, rows, items);                                            \
  }

EK_DEVICE_ENTRIES(EK_ENTRY)
