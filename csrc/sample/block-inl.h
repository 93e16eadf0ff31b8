// What locating hands to fetching: where up to kBlock neighbouring output voxels sample the image.
//
// Two passes over a block are twice as fast as one: in one, the chain from displacement to address to image
// to result is so long that a processor cannot overlap it with that of the next lanes. They also keep the
// number of bodies a sum, not a product: sources x orders x rules of locating, types x layouts of fetching.
#pragma once

#include "common/typed-inl.h"
#include "sample/sample_math-inl.h"

namespace ek {
namespace EK_ISA {

#if defined(EK_DEVICE)
constexpr int kBlock = 1;  // a thread of a GPU works on one voxel
constexpr int kLine = 1;
#else
constexpr int kBlock = 256;
constexpr int kLine = kBlock + 16;  // lines a page apart would be in each other's way in the cache
#endif
constexpr int kTaps = 4;  // along an axis, at most

// How the voxels of all lanes are fetched. Where neighbours sample neighbours, ordinary loads would do; but
// asking whether they do costs more, in branches that cannot be foreseen, than such loads save.
enum class Access : uint8_t {
  kPairs,   // inside the image: both corners of a line at once
  kSingle,  // lines of one voxel: the second corner is the first
  kMapped,  // the boundary rule chose: one voxel after the other, from offset[][]
};

// Indices and offsets count voxels of one channel. Of what stands here, order 0 uses index; order 1 uses
// index and weight[][0], or offset[][0..1] for index where access is kMapped; order 3 uses offset and weight.
struct Block {
  Access access[kBlock];                        // per vector
  alignas(64) int32_t index[kBlock];            // of the nearest or of the first corner
  alignas(64) int32_t offset[3][kTaps][kLine];  // along z, y, x; negative: outside and 0
  alignas(64) float weight[3][kTaps][kLine];    // order 1: of the second corner
};

// A row of output voxels and what surrounds it.
struct Row {
  int64_t n;      // of the batch
  int64_t z, y;   // in the output
  int64_t first;  // voxel (z, y, 0) in a channel of the output
};

// Fills the block for output voxels [x, x + count) of the row.
using Locate = void (*)(const SamplePlan& plan, const Row& row, int64_t x, int count, Block& block);
// Writes these voxels of the output, all channels.
using Fetch = void (*)(const SamplePlan& plan, const Row& row, int64_t x, int count, const Block& block);

// Calls lanes(at, count) for every full vector of a block, then for what remains.
template <class Lanes>
EK_INLINE void each_vector(int count, const Lanes& lanes) {
  int at = 0;
  for (; at + kLanes <= count; at += kLanes) lanes(at, kLanes);
  if (at < count) lanes(at, count - at);
}

}  // namespace EK_ISA
}  // namespace ek
