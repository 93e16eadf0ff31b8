// The sums of an image that decide how it is filtered on. For nvcc alone.
#pragma once

#include <cuda_runtime.h>

#include <vector>

#include "common/launch_cuda.h"

namespace ek {
namespace cuda {

// Adds the sums of rows in their order, as on the processor.
struct TotalOfRows {
  Stream stream;

  template <class Stencil>
  double operator()(const Stencil& stencil, int which) const {
    std::vector<double> sums(static_cast<size_t>(2 * stencil.rows()));
    check(cudaMemcpyAsync(sums.data(), stencil.sums, sums.size() * sizeof(double), cudaMemcpyDeviceToHost,
                          stream));
    check(cudaStreamSynchronize(stream));
    double total = 0.0;
    for (size_t row = 0; 2 * row < sums.size(); ++row) total += sums[2 * row + static_cast<size_t>(which)];
    return total;
  }
};

}  // namespace cuda
}  // namespace ek
