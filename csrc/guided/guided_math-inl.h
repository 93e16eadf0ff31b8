// What the voxels of a line add to the moments of a box, for whatever F is in this namespace: a scalar on the
// host or on a device, or the lanes of an instruction set. Included after one of common/simd_*-inl.h.
#pragma once

#include "common/platform.h"

namespace ek {
namespace EK_ISA {

// Some arrays at one voxel, in the order of GuidedPass; kCount is how many there are.
template <int kCount>
struct Values {
  F v[kCount];
};

// Means of a and b.
struct MeanSums {
  static constexpr int kInputs = 2;
  Values<2> middle;
  F sum[2];

  EK_MEMBER explicit MeanSums(const Values<2>& values) : middle(values), sum{F(0.0f), F(0.0f)} {}
  EK_MEMBER void add(const Values<2>& values) {
    for (int i = 0; i < 2; ++i) sum[i] = sum[i] + (values.v[i] - middle.v[i]);
  }
  EK_MEMBER Values<2> finish(F share) const {
    return {{middle.v[0] + sum[0] * share, middle.v[1] + sum[1] * share}};
  }
};

// Mean and variance.
struct OwnSums {
  static constexpr int kInputs = 2;
  F middle, sum, squares, variances;

  EK_MEMBER explicit OwnSums(const Values<2>& values)
      : middle(values.v[0]), sum(F(0.0f)), squares(F(0.0f)), variances(values.v[1]) {}
  EK_MEMBER void add(const Values<2>& values) {
    const F difference = values.v[0] - middle;
    sum = sum + difference;
    squares = squares + difference * difference;
    variances = variances + values.v[1];
  }
  EK_MEMBER Values<2> finish(F share) const {
    const F mean = sum * share;
    const F variance = max_(F(0.0f), squares * share - mean * mean);
    return {{middle + mean, variances * share + variance}};
  }
};

// Means of guide and image, variance of the guide, and covariance.
struct GuidedSums {
  static constexpr int kInputs = 4;
  F guide, image, guide_sum, image_sum, squares, products, variances, covariances;

  EK_MEMBER explicit GuidedSums(const Values<4>& values)
      : guide(values.v[0]),
        image(values.v[2]),
        guide_sum(F(0.0f)),
        image_sum(F(0.0f)),
        squares(F(0.0f)),
        products(F(0.0f)),
        variances(values.v[1]),
        covariances(values.v[3]) {}
  EK_MEMBER void add(const Values<4>& values) {
    const F difference = values.v[0] - guide, of_image = values.v[2] - image;
    guide_sum = guide_sum + difference;
    image_sum = image_sum + of_image;
    squares = squares + difference * difference;
    products = products + difference * of_image;
    variances = variances + values.v[1];
    covariances = covariances + values.v[3];
  }
  EK_MEMBER Values<4> finish(F share) const {
    const F mean = guide_sum * share, image_mean = image_sum * share;
    const F variance = max_(F(0.0f), squares * share - mean * mean);
    const F covariance = products * share - mean * image_mean;
    return {
        {guide + mean, variances * share + variance, image + image_mean, covariances * share + covariance}};
  }
};

// a and b.
EK_HD EK_INLINE Values<2> line_of(const Values<2>& moments, F epsilon) {
  const F a = moments.v[1] / (moments.v[1] + epsilon);
  return {{a, moments.v[0] - a * moments.v[0]}};
}
EK_HD EK_INLINE Values<2> line_of(const Values<4>& moments, F epsilon) {
  const F a = moments.v[3] / (moments.v[1] + epsilon);
  return {{a, moments.v[2] - a * moments.v[0]}};
}

}  // namespace EK_ISA
}  // namespace ek
