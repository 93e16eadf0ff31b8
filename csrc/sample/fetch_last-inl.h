// From blocks to samples of images whose channels are innermost: one voxel after the other, its channels
// together. The arithmetic is that of planar images, to the bit.
#pragma once

#include "sample/channel-inl.h"

namespace ek {
namespace EK_ISA {

// Channels that are computed at once: a vector type of the compiler's, which every machine has registers for.
constexpr int kQuad = 4;
typedef float Quad __attribute__((vector_size(kQuad * sizeof(float))));

template <class T>
EK_INLINE Quad load_quad(const T* p) {
  return Quad{widen(p[0]), widen(p[1]), widen(p[2]), widen(p[3])};
}
EK_INLINE Quad load_quad(const float* p) {
  Quad quad;
  __builtin_memcpy(&quad, p, sizeof quad);
  return quad;
}

template <class T>
EK_INLINE void store_quad(T* p, Quad v) {
  for (int i = 0; i < kQuad; ++i) narrow(p + i, v[i]);
}
EK_INLINE void store_quad(float* p, Quad v) { __builtin_memcpy(p, &v, sizeof v); }

// Calls quad(c) and single(c) so that every channel has its turn.
template <class OfQuad, class OfSingle>
EK_INLINE void each_channel(int64_t channels, const OfQuad& quad, const OfSingle& single) {
  int64_t c = 0;
  for (; c + kQuad <= channels; c += kQuad) quad(c);
  for (; c < channels; ++c) single(c);
}

template <class T, int kDims>
EK_INLINE void linear_channels(const SamplePlan& plan, const T* image, const Block& block, int i, T* out) {
  const int64_t channels = plan.args.image.c;
  const Cell<kDims> cell = cell_of<kDims>(plan, block, i);
  each_channel(
      channels,
      [&](int64_t c) __attribute__((always_inline)) {
        store_quad(out + c, cell.template sample<Quad>([&](int32_t at) __attribute__((always_inline)) {
          return at < 0 ? Quad{} : load_quad(image + at * channels + c);
        }));
      },
      [&](int64_t c)
          __attribute__((always_inline)) { linear_channel<kDims>(image, channels, cell, c, out + c); });
}

template <class T, int kDims, int kOrder>
void fetch_last(const SamplePlan& plan, const Row& row, int64_t x, int count, const Block& block) {
  const Sample& args = plan.args;
  const int64_t channels = args.image.c;
  const T* image = args.image.as<const T>() + row.n * channels * args.image.voxels();
  T* out = args.out.as<T>() + (row.n * args.out.voxels() + row.first + x) * channels;
  for (int i = 0; i < count; ++i, out += channels) {
    if constexpr (kOrder == 0) {
      for (int64_t c = 0; c < channels; ++c) nearest_channel(image, channels, block, i, c, out + c);
    } else if constexpr (kOrder == 1) {
      linear_channels<T, kDims>(plan, image, block, i, out);
    } else {
      for (int64_t c = 0; c < channels; ++c) cubic_channel<kDims>(image, channels, block, i, c, out + c);
    }
  }
}

}  // namespace EK_ISA
}  // namespace ek
