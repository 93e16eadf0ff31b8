// How a kernel of one thread per voxel runs. For nvcc alone.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "common/cuda.h"
#include "common/grid.h"

namespace ek {
namespace cuda {

inline void check(cudaError_t error) {
  if (error != cudaSuccess) throw CudaError(cudaGetErrorString(error));
}

template <class Voxel>
__global__ void __launch_bounds__(kRowThreads* kRowsPerBlock, kBlocksPerProcessor)
    each_voxel(const Voxel voxel, const uint32_t rows, const uint32_t items) {
  voxels_of_thread(voxel, rows, items);
}

// Adds what the threads of a warp have found. Sums of whole numbers do not depend on their order.
__device__ inline void add_found(uint32_t found, int64_t* to) {
  for (int lane = kRowThreads / 2; lane > 0; lane /= 2) found += __shfl_xor_sync(0xffffffffu, found, lane);
  if (threadIdx.x == 0 && found > 0) atomicAdd(reinterpret_cast<unsigned long long*>(to), found);
}

template <class Voxel>
__global__ void __launch_bounds__(kRowThreads* kRowsPerBlock, kBlocksPerProcessor)
    count_voxels(const Voxel voxel, const uint32_t rows, const uint32_t items, int64_t* const counts) {
  uint32_t found = 0, sample = 0;
  for (uint32_t row = blockIdx.y * kRowsPerBlock + threadIdx.y; row < rows;
       row += gridDim.y * kRowsPerBlock) {
    const uint32_t n = voxel.sample_of(row);  // the same for the whole warp
    if (n != sample) {
      add_found(found, counts + sample);
      found = 0;
      sample = n;
    }
    for (uint32_t item = blockIdx.x * kRowThreads + threadIdx.x; item < items;
         item += gridDim.x * kRowThreads) {
      found += voxel(row, item);
    }
  }
  add_found(found, counts + sample);
}

// Calls voxel(row, item) for all rows and items, in the order of the stream.
struct Launch {
  Stream stream;

  template <class Voxel>
  void operator()(const Voxel& voxel) const {
    const uint32_t rows = static_cast<uint32_t>(voxel.rows()), items = static_cast<uint32_t>(voxel.items());
    each_voxel<<<grid(rows, items, kMaxGrid), dim3(kRowThreads, kRowsPerBlock), 0, stream>>>(voxel, rows,
                                                                                             items);
    check(cudaGetLastError());
  }

  // Adds to counts[n] how often it is true for sample n. Few blocks: each adds once.
  template <class Voxel>
  void count(const Voxel& voxel, int64_t* counts) const {
    const uint32_t rows = static_cast<uint32_t>(voxel.rows()), items = static_cast<uint32_t>(voxel.items());
    count_voxels<<<grid(rows, items, 256), dim3(kRowThreads, kRowsPerBlock), 0, stream>>>(voxel, rows, items,
                                                                                          counts);
    check(cudaGetLastError());
  }

 private:
  static dim3 grid(uint32_t rows, uint32_t items, uint32_t most_rows) {
    const Grid blocks = grid_of(rows, items, most_rows);
    return dim3(blocks.x, blocks.y);
  }
};

}  // namespace cuda
}  // namespace ek
