// Compiles where our statement of the driver's interface is that of its header.
#include "hosts/tensorrt/driver_abi.h"

#include <cuda.h>

#include <type_traits>

namespace {

using namespace ek::hosts::driver;

template <class... Types>
struct List {};
// An enumeration there is an int here.
template <class T>
using Plain = std::conditional_t<std::is_enum<T>::value, int, T>;
template <class R, class... Arguments>
List<Plain<R>, Plain<Arguments>...> list_of(R (*)(Arguments...));

#define EK_SAME(member, function, result, arguments)                                           \
  static_assert(std::is_same<decltype(list_of(Api{}.member)), decltype(list_of(&function))>(), \
                "another interface of " #function);
EK_DRIVER_FUNCTIONS(EK_SAME)
#if CUDA_VERSION >= 12000
EK_SAME(context_id, cuCtxGetId, , )
#endif

static_assert(sizeof(CUresult) == sizeof(Result), "a code is an int");
static_assert(kSuccess == CUDA_SUCCESS && kNoBinaryForGpu == CUDA_ERROR_NO_BINARY_FOR_GPU &&
                  kInvalidPtx == CUDA_ERROR_INVALID_PTX &&
                  kUnsupportedPtx == CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
              "another code");

}  // namespace
