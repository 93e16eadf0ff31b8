// How the threads of a kernel are laid over rows and items: for those who launch it, and for its threads.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace ek {
namespace cuda {

// A warp lies along a row, where memory is contiguous. Several rows make a block, so that the voxels they
// sample in common are in the cache of one multiprocessor.
constexpr int kRowThreads = 32, kRowsPerBlock = 8;
// Two blocks fit a multiprocessor: at most 128 registers a thread.
constexpr int kBlocksPerProcessor = 2;
constexpr uint32_t kMaxGrid = 65535;

// Blocks of a kernel. There may be fewer than rows and items ask for: threads then take several.
struct Grid {
  uint32_t x, y;
};

constexpr Grid grid_of(uint32_t rows, uint32_t items, uint32_t most_rows = kMaxGrid) {
  const uint32_t x = (items - 1) / kRowThreads + 1, y = (rows - 1) / kRowsPerBlock + 1;
  return {x < kMaxGrid ? x : kMaxGrid, y < most_rows ? y : most_rows};
}

// Where in a grid a thread is.
struct Thread {
  uint32_t block_x, block_y, x, y;
};

// What a thread of such a grid does: voxel(row, item) for every row and item that is its own.
template <class Voxel>
EK_HD inline void voxels_of_thread(const Voxel& voxel, const uint32_t rows, const uint32_t items,
                                   const Grid grid, const Thread thread) {
  for (uint32_t row = thread.block_y * kRowsPerBlock + thread.y; row < rows; row += grid.y * kRowsPerBlock) {
    for (uint32_t item = thread.block_x * kRowThreads + thread.x; item < items;
         item += grid.x * kRowThreads) {
      voxel(row, item);
    }
  }
}

#if defined(__CUDACC__)
template <class Voxel>
__device__ inline void voxels_of_thread(const Voxel& voxel, const uint32_t rows, const uint32_t items) {
  voxels_of_thread(voxel, rows, items, {gridDim.x, gridDim.y},
                   {blockIdx.x, blockIdx.y, threadIdx.x, threadIdx.y});
}
#endif

}  // namespace cuda
}  // namespace ek
