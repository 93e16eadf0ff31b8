// One voxel of a warp of labels, as a thread of a device computes it. Included after
// common/simd_device-inl.h.
#pragma once

#include "labels/labels-inl.h"
#include "sample/sample_voxel-inl.h"

namespace ek {
namespace EK_ISA {

template <class T, int kDims, bool kLinear>
struct LabelsVoxel {
  LabelsPlan plan;

  EK_MEMBER int64_t rows() const { return plan.sample.rows; }
  EK_MEMBER int64_t items() const { return plan.args.out.w; }
  EK_MEMBER void operator()(uint32_t r, uint32_t x) const {
    const Labels& args = plan.args;
    const Row row = row_at(args.out, r);
    const int64_t voxels = args.labels.voxels(), first = row.n * args.labels.c * voxels;
    const T flip = args.is_signed ? static_cast<T>(T(1) << (8 * sizeof(T) - 1)) : T(0);
    const T* labels = args.labels.as<const T>() + first;
    T* out = args.out.as<T>() + first + row.first + x;
    Block block;
    locate_voxel<kDims, kLinear ? 1 : 0>(plan.sample, row, Displacement<float, kDims>(plan.sample, row, x),
                                         block);
    for (int64_t c = 0; c < args.labels.c; ++c, labels += voxels, out += voxels) {
      if constexpr (kLinear) {
        *out = linear_label<T, kDims>(plan, labels, block, 0, flip);
      } else {
        nearest_labels(labels, block, 1, out);
      }
    }
  }
};

template <class T, class Run>
void labels_dims(const LabelsPlan& plan, const Run& run) {
  if (plan.args.dims == 3) {
    return plan.args.linear ? run(LabelsVoxel<T, 3, true>{plan}) : run(LabelsVoxel<T, 3, false>{plan});
  }
  return plan.args.linear ? run(LabelsVoxel<T, 2, true>{plan}) : run(LabelsVoxel<T, 2, false>{plan});
}

// Calls run(voxel) with the one for the arguments.
template <class Run>
void with_labels_voxel(const LabelsPlan& plan, const Run& run) {
  switch (size_of(plan.args.labels.type)) {
    case 1:
      return labels_dims<uint8_t>(plan, run);
    case 2:
      return labels_dims<uint16_t>(plan, run);
    case 4:
      return labels_dims<uint32_t>(plan, run);
    default:
      return labels_dims<uint64_t>(plan, run);
  }
}

}  // namespace EK_ISA
}  // namespace ek
