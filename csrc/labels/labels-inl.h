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
        for (int i = 0; i < count; ++i) out[i] = linear_label<T, kDims>(plan, labels, block, i, flip);
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
