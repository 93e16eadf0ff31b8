#include "common/volume.h"

#include <string>

#include "common/error.h"

namespace ek {

void check_size(const char* name, int64_t n, int64_t c, int64_t d, int64_t h, int64_t w) {
  int64_t elements = 1;
  for (int64_t axis : {n, c, d, h, w}) {
    require(axis >= 1, std::string(name) + " has an axis of length 0");
    require(axis <= kMaxAxis, std::string(name) + " has an axis of " + std::to_string(axis) +
                                  " elements; at most " + std::to_string(kMaxAxis) + " are supported");
    // Both factors are bounded, so the product fits 64 bits before it is compared.
    elements *= axis;
    require(elements <= kMaxElements, std::string(name) + " has more than 2^31 - 1 elements");
  }
}

}  // namespace ek
