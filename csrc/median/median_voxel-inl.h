// The median around one voxel, as a thread of a device finds it. Included after common/simd_device-inl.h.
//
// A median is one of the values, whichever way it is found: small windows are selected from by a network in
// registers, large ones by the bits of their median, from the first to the last.
#pragma once

#include "common/box-inl.h"
#include "median/median_plan.h"
#include "median/networks-inl.h"

namespace ek {
namespace EK_ISA {

// Where a thread is.
struct MedianPlace {
  int64_t channel, z, y, x;
};

struct MedianThreads {
  Median args;

  EK_MEMBER int64_t rows() const { return args.image.n * args.image.c * args.image.d * args.image.h; }
  EK_MEMBER int64_t items() const { return args.image.w; }
  EK_MEMBER MedianPlace place(uint32_t row, uint32_t item) const {
    const uint32_t h = static_cast<uint32_t>(args.image.h), d = static_cast<uint32_t>(args.image.d);
    const uint32_t plane = row / h;
    return {plane / d, plane % d, row - plane * h, item};
  }
  EK_MEMBER float read(const MedianPlace& at, int z, int y, int x) const {
    return read_voxel(args.image, at.channel, at.z + z, at.y + y, at.x + x, args.boundary) + 0.0f;
  }
  EK_MEMBER void write(uint32_t row, uint32_t item, float value, bool unknown) const {
    write_voxel(args.out, row * args.image.w + item, unknown ? __builtin_nanf("") : value);
  }
};

template <int kDims, int kRadius>
struct SmallMedian : MedianThreads {
  static constexpr int kSide = 2 * kRadius + 1, kDepth = kDims == 3 ? kRadius : 0,
                       kVoxels = kSide * kSide * (kDims == 3 ? kSide : 1);
  using Net = Merge<kVoxels, 1, kVoxels / 2, kVoxels / 2 + 1>;

  EK_MEMBER void operator()(uint32_t row, uint32_t item) const {
    const MedianPlace at = place(row, item);
    F v[kVoxels];
    int i = 0;
    bool unknown = false;
    for (int z = -kDepth; z <= kDepth; ++z) {
      for (int y = -kRadius; y <= kRadius; ++y) {
        for (int x = -kRadius; x <= kRadius; ++x, ++i) {
          v[i] = read(at, z, y, x);
          unknown = unknown || is_nan(v[i]);
        }
      }
    }
    run<Net>(v);
    constexpr int wire = Net::network.rank[kVoxels / 2];
    write(row, item, v[wire], unknown);
  }
};

// Whole numbers in the order of the floats.
EK_HD EK_INLINE uint32_t median_key(float v) {
  const uint32_t bits = float_to_bits(v);
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}

struct LargeMedian : MedianThreads {
  EK_MEMBER void operator()(uint32_t row, uint32_t item) const {
    const MedianPlace at = place(row, item);
    const int radius = args.radius, depth = args.dims == 3 ? radius : 0, side = 2 * radius + 1;
    const int middle = side * side * (2 * depth + 1) / 2;
    uint32_t key = 0;
    bool unknown = false;
    // The largest key that at most `middle` voxels are below.
    for (uint32_t bit = 0x80000000u; bit > 0; bit >>= 1) {
      int below = 0;
      EK_NO_UNROLL
      for (int z = -depth; z <= depth; ++z) {
        EK_NO_UNROLL
        for (int y = -radius; y <= radius; ++y) {
          EK_NO_UNROLL
          for (int x = -radius; x <= radius; ++x) {
            const float v = read(at, z, y, x);
            unknown = unknown || is_nan(v);
            below += median_key(v) < (key | bit);
          }
        }
      }
      if (below <= middle) key |= bit;
    }
    const uint32_t bits = key ^ (key >> 31 ? 0x80000000u : 0xffffffffu);
    write(row, item, bits_to_float(bits), unknown);
  }
};

// Calls run(voxel) with the one for the arguments.
template <class Run>
void with_median_voxel(const Median& args, const Run& run) {
  if (args.dims == 3) return args.radius == 1 ? run(SmallMedian<3, 1>{{args}}) : run(LargeMedian{{args}});
  if (args.radius == 1) return run(SmallMedian<2, 1>{{args}});
  args.radius == 2 ? run(SmallMedian<2, 2>{{args}}) : run(SmallMedian<2, 3>{{args}});
}

}  // namespace EK_ISA
}  // namespace ek
