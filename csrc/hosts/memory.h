// Memory of one call of a kernel, for those who call kernels.
#pragma once

#include <cstdint>

#include "common/workers.h"

namespace ek {

// Workspace for so many workers of `bytes` each, at a multiple of 64. In large pages where it is large: a
// call would spend a quarter of its time on getting small ones.
class Memory {
 public:
  Memory(int workers, int64_t bytes);
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory();

  const Workspace workspace;
};

}  // namespace ek
