// The kernels of the device code on the processor: what a thread computes is compiled by the host's compiler,
// and the threads of a grid run one after the other.
#pragma once

#include <cstddef>
#include <cstdint>

namespace test {

struct EntryRun {
  const char* name;
  size_t bytes;  // of its argument
  void (*run)(const void* argument, uint32_t rows, uint32_t items, uint32_t grid_x, uint32_t grid_y);
};

// Null for a name that there is not.
const EntryRun* find_entry(const char* name);

}  // namespace test
