// What is used of the CUDA driver's library, in our own words: the same since CUDA 4, so that neither its
// headers nor its import library are needed. driver_abi.cpp of the tests compares it with cuda.h.
#pragma once

#include <cstddef>

// The driver's own tags, so that its handles and ours are of one type.
struct CUctx_st;
struct CUmod_st;
struct CUfunc_st;
struct CUstream_st;

namespace ek {
namespace hosts {
namespace driver {

using Result = int;  // an enumeration there
using Pointer = unsigned long long;
constexpr Result kSuccess = 0;
constexpr Result kNoBinaryForGpu = 209, kUnsupportedPtx = 222, kInvalidPtx = 218;

// X(member, function of the library, result, arguments)
#define EK_DRIVER_FUNCTIONS(X)                                                                               \
  X(error_string, cuGetErrorString, Result, (Result, const char**))                                          \
  X(current_context, cuCtxGetCurrent, Result, (CUctx_st**))                                                  \
  X(load_module, cuModuleLoadData, Result, (CUmod_st**, const void*))                                        \
  X(get_function, cuModuleGetFunction, Result, (CUfunc_st**, CUmod_st*, const char*))                        \
  X(launch, cuLaunchKernel, Result,                                                                          \
    (CUfunc_st*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream_st*, void**, \
     void**))                                                                                                \
  X(copy, cuMemcpyDtoDAsync_v2, Result, (Pointer, Pointer, size_t, CUstream_st*))                            \
  X(upload, cuMemcpyHtoDAsync_v2, Result, (Pointer, const void*, size_t, CUstream_st*))                      \
  X(fill, cuMemsetD32Async, Result, (Pointer, unsigned, size_t, CUstream_st*))

struct Api {
#define EK_MEMBER_OF_API(member, function, result, arguments) result(*member) arguments = nullptr;
  EK_DRIVER_FUNCTIONS(EK_MEMBER_OF_API)
#undef EK_MEMBER_OF_API
  // From CUDA 12.0 on: a context that has the address of a destroyed one has another number.
  Result (*context_id)(CUctx_st*, unsigned long long*) = nullptr;
};

}  // namespace driver
}  // namespace hosts
}  // namespace ek
