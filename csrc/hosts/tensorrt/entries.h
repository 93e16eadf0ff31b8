// The kernels of the device code, by name: for what compiles them and for what launches them. A kernel takes
// one of the structures below by value, then rows and items.
#pragma once

#include "common/simd_device-inl.h"
// The vocabulary above decides what the bodies below are compiled for.
#include "bilateral/bilateral_voxel-inl.h"
#include "jacobian/jacobian_voxel-inl.h"
#include "nlm/nlm_voxel-inl.h"
#include "sample/sample_voxel-inl.h"

namespace ek {
namespace device {

// One voxel of an array in another type: rows are pieces of it, of kPiece elements.
template <class From, class To>
struct ConvertVoxel {
  static constexpr int64_t kPiece = 4096;

  const From* from;
  To* to;
  int64_t count;

  EK_MEMBER int64_t rows() const { return (count + kPiece - 1) / kPiece; }
  EK_MEMBER int64_t items() const { return count < kPiece ? count : kPiece; }
  EK_MEMBER void operator()(uint32_t row, uint32_t item) const {
    const int64_t at = row * kPiece + item;
    if (at < count) narrow(to + at, widen(from[at]));
  }
};

// The host's compiler and the device's have to lay these out alike.
static_assert(sizeof(Tensor) == 56 && sizeof(SamplePlan) == 376, "a kernel's argument has changed");
static_assert(sizeof(JacobianDeterminant) == 128 && sizeof(NlmVoxel<true>) == 288 &&
                  sizeof(Bilateral) == 248 && sizeof(ConvertVoxel<Half, float>) == 24,
              "a kernel's argument has changed");

}  // namespace device
}  // namespace ek

// X(name, type) for every kernel.
#define EK_DEVICE_ENTRIES(X)                                                               \
  X(ek_sample_f32_3d_nearest, ek::device::SampleVoxel<float, 3, 0, ek::Finish::kStore>)    \
  X(ek_sample_f32_3d_linear, ek::device::SampleVoxel<float, 3, 1, ek::Finish::kStore>)     \
  X(ek_sample_f32_3d_cubic, ek::device::SampleVoxel<float, 3, 3, ek::Finish::kStore>)      \
  X(ek_sample_f32_2d_nearest, ek::device::SampleVoxel<float, 2, 0, ek::Finish::kStore>)    \
  X(ek_sample_f32_2d_linear, ek::device::SampleVoxel<float, 2, 1, ek::Finish::kStore>)     \
  X(ek_sample_f32_2d_cubic, ek::device::SampleVoxel<float, 2, 3, ek::Finish::kStore>)      \
  X(ek_sample_f16_3d_nearest, ek::device::SampleVoxel<ek::Half, 3, 0, ek::Finish::kStore>) \
  X(ek_sample_f16_3d_linear, ek::device::SampleVoxel<ek::Half, 3, 1, ek::Finish::kStore>)  \
  X(ek_sample_f16_3d_cubic, ek::device::SampleVoxel<ek::Half, 3, 3, ek::Finish::kStore>)   \
  X(ek_sample_f16_2d_nearest, ek::device::SampleVoxel<ek::Half, 2, 0, ek::Finish::kStore>) \
  X(ek_sample_f16_2d_linear, ek::device::SampleVoxel<ek::Half, 2, 1, ek::Finish::kStore>)  \
  X(ek_sample_f16_2d_cubic, ek::device::SampleVoxel<ek::Half, 2, 3, ek::Finish::kStore>)   \
  X(ek_compose_3d, ek::device::SampleVoxel<float, 3, 1, ek::Finish::kAddFlow>)             \
  X(ek_compose_2d, ek::device::SampleVoxel<float, 2, 1, ek::Finish::kAddFlow>)             \
  X(ek_determinant_f32_3d, ek::device::JacobianVoxel<float, 3>)                            \
  X(ek_determinant_f32_2d, ek::device::JacobianVoxel<float, 2>)                            \
  X(ek_determinant_f16_3d, ek::device::JacobianVoxel<ek::Half, 3>)                         \
  X(ek_determinant_f16_2d, ek::device::JacobianVoxel<ek::Half, 2>)                         \
  X(ek_nlm_pointwise, ek::device::NlmVoxel<false>)                                         \
  X(ek_nlm_blockwise, ek::device::NlmVoxel<true>)                                          \
  X(ek_bilateral, ek::device::BilateralVoxel<false>)                                       \
  X(ek_widen, ek::device::ConvertVoxel<ek::Half, float>)                                   \
  X(ek_narrow, ek::device::ConvertVoxel<float, ek::Half>)
