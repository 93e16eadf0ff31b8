#include "common/tensor.h"

#include <string>

#include "common/error.h"

namespace ek {

void check_size(const char* name, const Tensor& tensor) {
  int64_t elements = 1;
  for (int64_t axis : {tensor.n, tensor.c, tensor.d, tensor.h, tensor.w}) {
    require(axis >= 1, std::string(name) + " has an axis of length 0");
    require(axis <= kMaxAxis, std::string(name) + " has an axis of " + std::to_string(axis) +
                                  " elements; at most " + std::to_string(kMaxAxis) + " are supported");
    // Both factors are bounded, so the product fits 64 bits before it is compared.
    elements *= axis;
    require(elements <= kMaxElements, std::string(name) + " has more than 2^31 - 1 elements");
  }
}

bool overlap(const Tensor& a, const Tensor& b) {
  const auto first = reinterpret_cast<std::uintptr_t>(a.data),
             second = reinterpret_cast<std::uintptr_t>(b.data);
  return first < second + static_cast<std::uintptr_t>(b.bytes()) &&
         second < first + static_cast<std::uintptr_t>(a.bytes());
}

}  // namespace ek
