// The adjoint of a warp, as the threads of a device compute it. Included after common/simd_device-inl.h.
//
// Threads add to the voxels they reach in no order. For the result not to depend on it, sums are whole
// numbers: a part counts in units of 2^-unit, chosen for each channel such that not even all of its values in
// one voxel overflow 63 bits. Next to the channel's largest value a part so keeps 61 - log2(voxels) bits,
// more than float32 has for up to 2^37 voxels. What is not finite has no such number, and is noted in two
// bits of a mask.
#pragma once

#include "adjoint/adjoint_plan.h"
#include "sample/channel-inl.h"
#include "sample/sample_voxel-inl.h"

namespace ek {
namespace EK_ISA {

// What is pushed, where to, and the workspace in between; elements are those of `out`.
struct Pushed {
  Tensor values;  // without data all are 1
  Tensor out;
  int64_t* sums;          // per element
  uint32_t* masks;        // two bits per element
  const uint32_t* peaks;  // per sample and channel: the bits of the largest finite |value|
  int32_t room;           // bits for a value in units: 61 - log2(voxels)

  // For channel c of the batch.
  EK_MEMBER int32_t unit(int64_t c) const {
    const int32_t exponent = values.data ? static_cast<int32_t>(peaks[c] >> 23) - 127 : 0;
    return room - 1 - (exponent > -126 ? exponent : -126);
  }
};

EK_INLINE float power_of_two(int32_t exponent) {
  return bits_to_float(static_cast<uint32_t>(exponent + 127) << 23);
}

// v * 2^exponent, in two steps that are exact as long as the result is.
EK_INLINE float scaled(float v, int32_t exponent) {
  const int32_t half = exponent / 2;
  return v * power_of_two(half) * power_of_two(exponent - half);
}

EK_INLINE void atomic_add(int64_t* to, int64_t value) {
#if defined(__CUDA_ARCH__)
  atomicAdd(reinterpret_cast<unsigned long long*>(to), static_cast<unsigned long long>(value));
#else
  *to += value;
#endif
}

EK_INLINE void atomic_or(uint32_t* to, uint32_t bits) {
#if defined(__CUDA_ARCH__)
  atomicOr(to, bits);
#else
  *to |= bits;
#endif
}

EK_INLINE void atomic_max(uint32_t* to, uint32_t bits) {
#if defined(__CUDA_ARCH__)
  if (*to < bits) atomicMax(to, bits);
#else
  *to = *to < bits ? bits : *to;
#endif
}

constexpr uint32_t kUp = 1, kDown = 2;  // infinity and minus infinity; NaN is both

EK_INLINE void add_part(const Pushed& pushed, int64_t element, float part, int32_t unit) {
  if (part - part == 0.0f) {
    atomic_add(pushed.sums + element, static_cast<int64_t>(__builtin_rintf(scaled(part, unit))));
  } else {
    const uint32_t bits = part != part ? kUp | kDown : (part > 0.0f ? kUp : kDown);
    atomic_or(pushed.masks + element / 16, bits << (element % 16 * 2));
  }
}

EK_INLINE float sum_of(const Pushed& pushed, int64_t element, int32_t unit) {
  const uint32_t bits = pushed.masks[element / 16] >> (element % 16 * 2) & (kUp | kDown);
  if (bits == 0) return scaled(static_cast<float>(pushed.sums[element]), -unit);
  return bits == kUp ? __builtin_inff() : (bits == kDown ? -__builtin_inff() : __builtin_nanf(""));
}

// Row r of all channels: which of them it is of.
EK_INLINE uint32_t channel_of(const Tensor& tensor, uint32_t r) {
  return r / static_cast<uint32_t>(tensor.d * tensor.h);
}

// First: the largest finite value of each channel. Bits of floats that are not negative are in their order.
struct AdjointPeak {
  Tensor values;
  uint32_t* peaks;

  EK_MEMBER int64_t rows() const { return values.n * values.c * values.d * values.h; }
  EK_MEMBER int64_t items() const { return values.w; }
  EK_MEMBER void operator()(uint32_t r, uint32_t x) const {
    const uint32_t magnitude = float_to_bits(values.as<const float>()[r * values.w + x]) & 0x7fffffffu;
    if (magnitude < 0x7f800000u) atomic_max(peaks + channel_of(values, r), magnitude);
  }
};

// Second: every value to the voxels that its sample is made of.
template <int kDims, int kOrder>
struct AdjointPush {
  SamplePlan plan;
  Pushed pushed;

  EK_MEMBER int64_t rows() const { return plan.rows; }
  EK_MEMBER int64_t items() const { return plan.args.out.w; }
  EK_MEMBER void operator()(uint32_t r, uint32_t x) const {
    const Row row = row_at(plan.args.out, r);
    Block block;
    locate_voxel<kDims, kOrder>(plan, row, Displacement<float, kDims>(plan, row, x), block);
    const int64_t voxels = pushed.out.voxels();
    for (int64_t c = row.n * pushed.out.c; c < (row.n + 1) * pushed.out.c; ++c) {
      const float value =
          pushed.values.data ? pushed.values.as<const float>()[c * voxels + row.first + x] : 1.0f;
      push(block, c * voxels, value, pushed.unit(c));
    }
  }

 private:
  EK_MEMBER void push(const Block& block, int64_t first, float value, int32_t unit) const {
    if constexpr (kOrder == 0) {
      if (block.index[0] >= 0) add_part(pushed, first + block.index[0], value, unit);
    } else if constexpr (kOrder == 1) {
      push_cell(cell_of<kDims>(plan, block, 0), first, value, unit);
    } else {
      push_cubic(block, first, value, unit);
    }
  }

  EK_MEMBER void push_cell(const Cell<kDims>& cell, int64_t first, float value, int32_t unit) const {
    const float known = cell.wz + cell.wy + cell.wx;
    if (known != known) return;  // a displacement is NaN
    for (int corner = 0; corner < 1 << kDims; ++corner) {
      if (cell.corner[corner] < 0) continue;
      const float wz = corner & 4 ? cell.wz : 1.0f - cell.wz, wy = corner & 2 ? cell.wy : 1.0f - cell.wy;
      const float line = kDims == 3 ? wz * wy : wy;
      const float weight = line * (corner & 1 ? cell.wx : 1.0f - cell.wx);
      add_part(pushed, first + cell.corner[corner], value * weight, unit);
    }
  }

  EK_MEMBER void push_cubic(const Block& block, int64_t first, float value, int32_t unit) const {
    const float known =
        (kDims == 3 ? block.weight[0][0][0] : 0.0f) + block.weight[1][0][0] + block.weight[2][0][0];
    if (known != known) return;  // a displacement is NaN
    EK_NO_UNROLL
    for (int line = 0; line < (kDims == 3 ? 16 : 4); ++line) {
      const int k = line >> 2, j = line & 3;
      const int32_t oz = kDims == 3 ? block.offset[0][k][0] : 0, oy = block.offset[1][j][0];
      if ((oz | oy) < 0) continue;
      const float weight = block.weight[1][j][0],
                  part = value * (kDims == 3 ? block.weight[0][k][0] * weight : weight);
      for (int tap = 0; tap < 4; ++tap) {
        const int32_t ox = block.offset[2][tap][0];
        if (ox >= 0) add_part(pushed, first + (int64_t{oz} + oy + ox), part * block.weight[2][tap][0], unit);
      }
    }
  }
};

// Third: sums as floats.
struct AdjointFinish {
  Pushed pushed;

  EK_MEMBER int64_t rows() const { return pushed.out.n * pushed.out.c * pushed.out.d * pushed.out.h; }
  EK_MEMBER int64_t items() const { return pushed.out.w; }
  EK_MEMBER void operator()(uint32_t r, uint32_t x) const {
    const int64_t element = r * pushed.out.w + x;
    pushed.out.as<float>()[element] = sum_of(pushed, element, pushed.unit(channel_of(pushed.out, r)));
  }
};

template <int kDims, class Run>
void adjoint_order(const SamplePlan& plan, const Pushed& pushed, const Run& run) {
  if (plan.args.order == 0) return run(AdjointPush<kDims, 0>{plan, pushed});
  if (plan.args.order == 1) return run(AdjointPush<kDims, 1>{plan, pushed});
  run(AdjointPush<kDims, 3>{plan, pushed});
}

// Parts of a workspace for `out` of so many elements, in bytes: sums, masks, peaks. All begin as zeros.
struct AdjointSpace {
  int64_t sums, masks, peaks;

  explicit AdjointSpace(const Tensor& out)
      : sums(out.elements() * 8), masks((out.elements() + 15) / 16 * 4), peaks(out.n * out.c * 4) {}
  int64_t bytes() const { return (sums + masks + peaks + 7) / 8 * 8; }
};

// The passes for one result, in order; `space` is zeros and lies at a multiple of 8.
template <class Run>
void adjoint_passes(const AdjointPlan& plan, const Tensor& values, const Tensor& out, char* space,
                    const Run& run) {
  const AdjointSpace parts(out);
  uint32_t* peaks = reinterpret_cast<uint32_t*>(space + parts.sums + parts.masks);
  int32_t room = 61;
  for (int64_t voxels = out.voxels(); voxels > 1; voxels = (voxels + 1) / 2) --room;
  const Pushed pushed{
      values, out, reinterpret_cast<int64_t*>(space), reinterpret_cast<uint32_t*>(space + parts.sums),
      peaks,  room};
  if (values.data) run(AdjointPeak{values, peaks});
  if (plan.args.dims == 3) {
    adjoint_order<3>(plan.sample, pushed, run);
  } else {
    adjoint_order<2>(plan.sample, pushed, run);
  }
  run(AdjointFinish{pushed});
}

// All passes. Returns the bytes of workspace they need; without a workspace that is all it does.
template <class Run>
int64_t adjoint_passes(const AdjointPlan& plan, char* space, const Run& run) {
  const Adjoint& args = plan.args;
  const int64_t first = AdjointSpace(args.out).bytes();
  const int64_t second = args.counts.data ? AdjointSpace(args.counts).bytes() : 0;
  if (!space) return first + second;
  adjoint_passes(plan, args.values, args.out, space, run);
  if (args.counts.data) adjoint_passes(plan, Tensor(), args.counts, space + first, run);
  return first + second;
}

}  // namespace EK_ISA
}  // namespace ek
