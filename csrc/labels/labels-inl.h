// The body of a warp of labels, compiled once per instruction set. Included after one of
// common/simd_*-inl.h; nothing of the standard library may be used here (see platform.h).
//
// T is an unsigned type of a label's size. Only the order of labels depends on the sign.
#pragma once

#include "labels/labels_plan.h"
#include "sample/channel-inl.h"
#include "sample/locate-inl.h"
#include "sample/rows-inl.h"

namespace ek {
namespace EK_ISA {

template <class T>
EK_INLINE void nearest_labels(const T* labels, const Block& block, int count, T* out) {
  for (int i = 0; i < count; ++i) out[i] = block.index[i] < 0 ? T(0) : labels[block.index[i]];
}

// The label with the largest sum of weights; of equal ones the smaller. `flip` is the sign bit of signed
// types.
template <class T, int kCorners>
EK_INLINE T vote(const T (&label)[kCorners], const float (&weight)[kCorners], T flip) {
  T best = label[0];
  float most = -1.0f;
  for (int i = 0; i < kCorners; ++i) {
    float total = 0.0f;
    for (int j = 0; j < kCorners; ++j) total += label[j] == label[i] ? weight[j] : 0.0f;
    const bool smaller = static_cast<T>(label[i] ^ flip) < static_cast<T>(best ^ flip);
    if (total > most || (total == most && smaller)) {
      most = total;
      best = label[i];
    }
  }
  return best;
}

template <class T, int kDims>
EK_INLINE T linear_label(const LabelsPlan& plan, const T* labels, const Block& block, int i, T flip) {
  constexpr int kCorners = 1 << kDims;
  const Cell<kDims> cell = cell_of<kDims>(plan.sample, block, i);
  T label[kCorners];
  bool same = true;
  for (int corner = 0; corner < kCorners; ++corner) {
    label[corner] = cell.corner[corner] < 0 ? T(0) : labels[cell.corner[corner]];
    same &= label[corner] == label[0];
  }
  const float sum = cell.wz + cell.wy + cell.wx;
  if (sum != sum) return T(0);  // a displacement is NaN
  if (same) return label[0];
  float weight[kCorners];
  for (int corner = 0; corner < kCorners; ++corner) {
    const float wz = corner & 4 ? cell.wz : 1.0f - cell.wz, wy = corner & 2 ? cell.wy : 1.0f - cell.wy;
    const float plane = kDims == 3 ? wz * wy : wy;
    weight[corner] = plane * (corner & 1 ? cell.wx : 1.0f - cell.wx);
  }
  return vote<T, kCorners>(label, weight, flip);
}

#if !defined(EK_DEVICE)  // whose threads have a voxel each

// Labels as whole numbers of 32 bits in their order, and back.
template <class T>
struct Code {
  static constexpr bool kWide = sizeof(T) > sizeof(int32_t);
  static constexpr uint32_t kTop = sizeof(T) == sizeof(int32_t) ? 0x80000000u : 0u;
  T flip;

  EK_MEMBER int32_t of(T label) const {
    if constexpr (kWide) return static_cast<int32_t>(label);
    return static_cast<int32_t>(static_cast<uint32_t>(static_cast<T>(label ^ flip)) ^ kTop);
  }
  EK_MEMBER T label(int32_t code) const {
    if constexpr (kWide) return static_cast<T>(static_cast<int64_t>(code));
    return static_cast<T>(static_cast<T>(static_cast<uint32_t>(code) ^ kTop) ^ flip);
  }
  // Whether the code stands for the label: all but those of 64 bits that need more than 32 have one.
  EK_MEMBER bool stands_for(int32_t code, T the_label) const {
    return !kWide || (label(code) == the_label && (flip != 0 || code >= 0));
  }
};

// The codes of the labels at the corners of a block's cells.
struct CornerCodes {
  alignas(64) int32_t of[8][kLine];
};

// Returns whether every label has a code.
template <class T, int kDims>
EK_INLINE bool read_corners(const SamplePlan& plan, const T* labels, const Block& block, int count,
                            Code<T> code, CornerCodes& codes) {
  const int64_t dz = step_along(plan.axis[0]), dy = step_along(plan.axis[1]), dx = step_along(plan.axis[2]);
  bool coded = true;
  const auto put = [&](int corner, int i, T label) __attribute__((always_inline)) {
    codes.of[corner][i] = code.of(label);
    coded &= code.stands_for(codes.of[corner][i], label);
  };
  each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
    const bool mapped = block.access[at / kLanes] == Access::kMapped;
    for (int i = at; i < at + lanes; ++i) {
      if (mapped) {
        const Cell<kDims> cell = cell_of<kDims>(plan, block, i);
        for (int corner = 0; corner < 1 << kDims; ++corner) {
          put(corner, i, cell.corner[corner] < 0 ? T(0) : labels[cell.corner[corner]]);
        }
      } else {
        const T* first = labels + block.index[i];
        for (int line = 0; line < 1 << (kDims - 1); ++line) {
          const T* ends = first + (line >> 1) * dz + (line & 1) * dy;
          put(2 * line, i, ends[0]);
          put(2 * line + 1, i, ends[dx]);
        }
      }
    }
  });
  return coded;
}

EK_INLINE M equal(I a, I b) { return both(greater_equal(a, b), greater_equal(b, a)); }

// As vote() above, for a vector of voxels.
template <int kCorners>
EK_INLINE I vote_lanes(const I (&code)[kCorners], const F (&weight)[kCorners]) {
  I best = code[0];
  F most(-1.0f);
  for (int i = 0; i < kCorners; ++i) {
    F total(0.0f);
    for (int j = 0; j < kCorners; ++j) {
      total = total + (i == j ? weight[j] : select(equal(code[i], code[j]), weight[j], F(0.0f)));
    }
    // Of equal ones the smaller; then, of any, the heavier.
    best = select(both(greater_equal(total, most), greater_equal(best, code[i])), code[i], best);
    best = select(greater(total, most), code[i], best);
    most = max_(total, most);
  }
  return best;
}

template <int kDims>
EK_INLINE I winner(const Block& block, const CornerCodes& codes, int at, int32_t nothing) {
  constexpr int kCorners = 1 << kDims;
  I code[kCorners];
  M same = greater_equal(I(0), I(0));
  for (int corner = 0; corner < kCorners; ++corner) {
    code[corner] = load(codes.of[corner] + at);
    same = both(same, equal(code[corner], code[0]));
  }
  const F wz = kDims == 3 ? load(block.weight[0][0] + at) : F(0.0f), wy = load(block.weight[1][0] + at),
          wx = load(block.weight[2][0] + at);
  I best = code[0];
  if (!all(same)) {
    F weight[kCorners];
    for (int corner = 0; corner < kCorners; ++corner) {
      const F z = corner & 4 ? wz : F(1.0f) - wz, y = corner & 2 ? wy : F(1.0f) - wy;
      weight[corner] = (kDims == 3 ? z * y : y) * (corner & 1 ? wx : F(1.0f) - wx);
    }
    best = vote_lanes<kCorners>(code, weight);
  }
  return select(is_nan(wz + wy + wx), I(nothing), best);
}

template <class T, int kDims>
EK_INLINE void linear_labels(const LabelsPlan& plan, const T* labels, const Block& block, int count, T flip,
                             T* out) {
  const Code<T> code{flip};
  CornerCodes codes;
  if (!read_corners<T, kDims>(plan.sample, labels, block, count, code, codes)) {
    for (int i = 0; i < count; ++i) out[i] = linear_label<T, kDims>(plan, labels, block, i, flip);
    return;
  }
  alignas(64) int32_t best[kLine];
  each_vector(count, [&](int at, int) __attribute__((always_inline)) {
    store(best + at, winner<kDims>(block, codes, at, code.of(T(0))));
  });
  for (int i = 0; i < count; ++i) out[i] = code.label(best[i]);
}

template <class T, int kDims>
void labels_rows(const LabelsPlan& plan, int64_t begin, int64_t end) {
  const Labels& args = plan.args;
  const int64_t voxels = args.labels.voxels();
  const T flip = args.is_signed ? static_cast<T>(T(1) << (8 * sizeof(T) - 1)) : T(0);
  Block block;
  each_block(plan.sample, begin, end, [&](const Row& row, int64_t x, int count) {
    locate<kDims, Displacement<float, kDims>>(plan.sample, row, x, count, block);
    for (int64_t c = row.n * args.labels.c; c < (row.n + 1) * args.labels.c; ++c) {
      const T* labels = args.labels.as<const T>() + c * voxels;
      T* out = args.out.as<T>() + c * voxels + row.first + x;
      if (!args.linear) {
        nearest_labels(labels, block, count, out);
      } else {
        linear_labels<T, kDims>(plan, labels, block, count, flip, out);
      }
    }
  });
}

template <int kDims>
EK_INLINE void labels_of_size(const LabelsPlan& plan, int64_t begin, int64_t end) {
  switch (size_of(plan.args.labels.type)) {
    case 1:
      return labels_rows<uint8_t, kDims>(plan, begin, end);
    case 2:
      return labels_rows<uint16_t, kDims>(plan, begin, end);
    case 4:
      return labels_rows<uint32_t, kDims>(plan, begin, end);
    default:
      return labels_rows<uint64_t, kDims>(plan, begin, end);
  }
}

void labels_tasks(const void* context, int64_t begin, int64_t end) {
  const LabelsPlan& plan = *static_cast<const LabelsPlan*>(context);
  if (plan.args.dims == 3) {
    labels_of_size<3>(plan, begin, end);
  } else {
    labels_of_size<2>(plan, begin, end);
  }
}

#endif

}  // namespace EK_ISA
}  // namespace ek
