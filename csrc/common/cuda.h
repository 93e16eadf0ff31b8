// What the CUDA side of every kernel shares with those who call it; needs no header of CUDA.
#pragma once

#include <stdexcept>

struct CUstream_st;

namespace ek {
namespace cuda {

using Stream = CUstream_st*;

// The device or its driver fails. Bad arguments are an ek::Error, as on the CPU.
class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace cuda
}  // namespace ek
