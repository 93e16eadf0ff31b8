// One voxel of a sampled image, as a thread of a device computes it. Included after common/simd_device-inl.h.
#pragma once

#include "sample/channel-inl.h"
#include "sample/locate-inl.h"

namespace ek {
namespace EK_ISA {

// Row `r` of the output. There are fewer than 2^31 of them, and 32-bit division is much faster on a device.
EK_INLINE Row row_at(const Tensor& out, uint32_t r) {
  const uint32_t h = static_cast<uint32_t>(out.h), layers = static_cast<uint32_t>(out.d) * h;
  const uint32_t n = r / layers, within = r - n * layers, z = within / h;
  return {n, z, within - z * h, within * out.w};
}

// A voxel's coordinates, whatever source they are from: a branch that all threads take alike is cheaper than
// as many kernels as there are sources.
struct Anywhere {
  F f_[3], p_[3];
  I whole_[3];

  template <int kAxis, class Source>
  EK_MEMBER void take(const Source& source) {
    f_[kAxis] = source.template f<kAxis>(0, 1);
    p_[kAxis] = source.template p<kAxis>(0, 1);
    whole_[kAxis] = source.template whole<kAxis>(0, 1);
  }
  template <int kDims, class Source>
  EK_MEMBER void take_all(const Source& source) {
    if constexpr (kDims == 3) take<0>(source);
    take<1>(source);
    take<2>(source);
  }

  template <int kAxis>
  EK_MEMBER F f(int, int) const {
    return f_[kAxis];
  }
  template <int kAxis>
  EK_MEMBER F p(int, int) const {
    return p_[kAxis];
  }
  template <int kAxis>
  EK_MEMBER I whole(int, int) const {
    return whole_[kAxis];
  }
};

template <int kDims>
EK_INLINE Anywhere coordinates_at(const SamplePlan& plan, const Row& row, int64_t x) {
  Anywhere at;
  switch (plan.args.source) {
    case Source::kGrid:
      at.take_all<kDims>(Grid<kDims>(plan, row, x));
      break;
    case Source::kAffine:
      at.take_all<kDims>(Affine<kDims>(plan, row, x));
      break;
    default:
      if (plan.args.coordinates.type == Type::kFloat16) {
        at.take_all<kDims>(Displacement<Half, kDims>(plan, row, x));
      } else {
        at.take_all<kDims>(Displacement<float, kDims>(plan, row, x));
      }
  }
  return at;
}

// The block of one voxel whose coordinates a source has.
template <int kDims, int kOrder, class Source>
EK_INLINE void locate_voxel(const SamplePlan& plan, const Row& row, const Source& source, Block& block) {
  if constexpr (kOrder == 0) {
    nearest_vector<kDims>(plan, source, 0, 1, block);
  } else if constexpr (kOrder == 3) {
    cubic_vector<kDims>(plan, source, 0, 1, block);
  } else if (plan.args.boundary == Boundary::kEdge) {
    linear_vector<kDims, true>(plan, Lines<kDims>(plan, row), source, 0, 1, block);
  } else {
    linear_vector<kDims, false>(plan, Lines<kDims>(plan, row), source, 0, 1, block);
  }
}

// Rows are those of the output. Planar: items are voxels, all channels at once.
template <class T, int kDims, int kOrder, Finish kFinish>
struct SampleVoxel {
  SamplePlan plan;

  EK_MEMBER int64_t rows() const { return plan.rows; }
  EK_MEMBER int64_t items() const { return plan.args.out.w; }
  EK_MEMBER void operator()(uint32_t r, uint32_t x) const {
    const Row row = row_at(plan.args.out, r);
    Block block;
    locate_voxel<kDims, kOrder>(plan, row, coordinates_at<kDims>(plan, row, x), block);
    fetch<T, kDims, kOrder, kFinish>(plan, row, x, 1, block);
  }
};

// Channels innermost: items are channels of voxels, so that neighbouring threads read and write neighbouring
// memory. They locate the same voxel, which costs less than reading in strides.
template <class T, int kDims, int kOrder>
struct SampleChannel {
  SamplePlan plan;

  EK_MEMBER int64_t rows() const { return plan.rows; }
  EK_MEMBER int64_t items() const { return plan.args.out.w * plan.args.out.c; }
  EK_MEMBER void operator()(uint32_t r, uint32_t item) const {
    const Sample& args = plan.args;
    const uint32_t channels = static_cast<uint32_t>(args.image.c), x = item / channels,
                   c = item - x * channels;
    const Row row = row_at(args.out, r);
    const T* image = args.image.as<const T>() + row.n * channels * args.image.voxels();
    T* out = args.out.as<T>() + (row.n * args.out.voxels() + row.first) * channels + item;
    Block block;
    locate_voxel<kDims, kOrder>(plan, row, coordinates_at<kDims>(plan, row, x), block);
    if constexpr (kOrder == 0) {
      nearest_channel(image, channels, block, 0, c, out);
    } else if constexpr (kOrder == 1) {
      linear_channel<kDims>(image, channels, cell_of<kDims>(plan, block, 0), c, out);
    } else {
      cubic_channel<kDims>(image, channels, block, 0, c, out);
    }
  }
};

// Calls run(voxel) with the one for the arguments.
template <class T, int kDims, int kOrder, class Run>
void sample_layout(const SamplePlan& plan, const Run& run) {
  if (plan.args.image.channels_last) return run(SampleChannel<T, kDims, kOrder>{plan});
  if constexpr (sizeof(T) == sizeof(float) && kOrder == 1) {
    if (plan.args.finish == Finish::kAddFlow) return run(SampleVoxel<T, kDims, 1, Finish::kAddFlow>{plan});
  }
  run(SampleVoxel<T, kDims, kOrder, Finish::kStore>{plan});
}

template <class T, int kDims, class Run>
void sample_order(const SamplePlan& plan, const Run& run) {
  if (plan.args.order == 0) return sample_layout<T, kDims, 0>(plan, run);
  if (plan.args.order == 1) return sample_layout<T, kDims, 1>(plan, run);
  sample_layout<T, kDims, 3>(plan, run);
}

template <class T, class Run>
void sample_dims(const SamplePlan& plan, const Run& run) {
  if (plan.args.dims == 3) return sample_order<T, 3>(plan, run);
  sample_order<T, 2>(plan, run);
}

template <class Run>
void with_sample_voxel(const SamplePlan& plan, const Run& run) {
  switch (plan.args.image.type) {
    case Type::kFloat16:
      return sample_dims<Half>(plan, run);
    case Type::kUint8:
      return sample_dims<uint8_t>(plan, run);
    case Type::kInt16:
      return sample_dims<int16_t>(plan, run);
    default:
      return sample_dims<float>(plan, run);
  }
}

}  // namespace EK_ISA
}  // namespace ek
