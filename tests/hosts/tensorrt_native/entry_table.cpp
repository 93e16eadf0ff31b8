#include "entry_table.h"

#include <cstring>

#include "common/grid.h"
#include "hosts/tensorrt/entries.h"

namespace test {
namespace {

// All threads of a grid, the last first: no thread may wait for another.
template <class Voxel>
void run(const void* argument, uint32_t rows, uint32_t items, uint32_t grid_x, uint32_t grid_y) {
  const Voxel& voxel = *static_cast<const Voxel*>(argument);
  for (uint32_t block_y = grid_y; block_y-- > 0;) {
    for (uint32_t block_x = grid_x; block_x-- > 0;) {
      for (uint32_t thread = ek::cuda::kRowThreads * ek::cuda::kRowsPerBlock; thread-- > 0;) {
        ek::cuda::voxels_of_thread(
            voxel, rows, items, {grid_x, grid_y},
            {block_x, block_y, thread % ek::cuda::kRowThreads, thread / ek::cuda::kRowThreads});
      }
    }
  }
}

#define EK_ENTRY_RUN(name, ...) {#name, sizeof(__VA_ARGS__), run<__VA_ARGS__>},
constexpr EntryRun kEntries[] = {EK_DEVICE_ENTRIES(EK_ENTRY_RUN)};

}  // namespace

const EntryRun* find_entry(const char* name) {
  for (const EntryRun& entry : kEntries) {
    if (std::strcmp(entry.name, name) == 0) return &entry;
  }
  return nullptr;
}

}  // namespace test

// For the test that compares them with the device code.
extern "C" int entry_bytes(const char* name) {
  const test::EntryRun* entry = test::find_entry(name);
  return entry ? static_cast<int>(entry->bytes) : -1;
}
