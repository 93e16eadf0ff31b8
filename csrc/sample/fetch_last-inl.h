// From blocks to samples of images whose channels are innermost: one voxel after the other, its channels
// together. The arithmetic is that of planar images, to the bit.
#pragma once

#include "sample/fetch-inl.h"

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

EK_INLINE void narrow(float* p, float v) { *p = v; }
EK_INLINE void narrow(Half* p, float v) { *p = float_to_half(v); }
EK_INLINE void narrow(uint8_t* p, float v) {
  *p = static_cast<uint8_t>(v > 0.0f ? __builtin_rintf(v < 255.0f ? v : 255.0f) : 0.0f);
}
EK_INLINE void narrow(int16_t* p, float v) {
  const float low = v > -32768.0f ? v : (v == v ? -32768.0f : 0.0f);
  *p = static_cast<int16_t>(__builtin_rintf(low < 32767.0f ? low : 32767.0f));
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

template <class V>
EK_INLINE V blend_channels(V a, V b, float weight) {
  return a * (1.0f - weight) + b * weight;
}

// Corners (z, y, x) of a cell as offsets in voxels; negative: outside and 0.
template <int kDims>
struct Cell {
  int32_t corner[1 << kDims];
  float wz, wy, wx;

  // at(offset) gives the channels of a voxel, zeros where the offset is negative.
  template <class V, class At>
  EK_MEMBER V sample(const At& at) const {
    V plane[2];
    for (int z = 0; z < (kDims == 3 ? 2 : 1); ++z) {
      const int32_t* c = corner + 4 * z;
      const V near = blend_channels<V>(at(c[0]), at(c[1]), wx),
              far = blend_channels<V>(at(c[2]), at(c[3]), wx);
      plane[z] = blend_channels<V>(near, far, wy);
    }
    if constexpr (kDims == 2) return plane[0];
    return blend_channels<V>(plane[0], plane[1], wz);
  }
};

template <int kDims>
EK_INLINE Cell<kDims> cell_of(const SamplePlan& plan, const Block& block, int i) {
  Cell<kDims> cell;
  cell.wz = kDims == 3 ? block.weight[0][0][i] : 0.0f;
  cell.wy = block.weight[1][0][i];
  cell.wx = block.weight[2][0][i];
  const bool mapped = block.access[i / kLanes] == Access::kMapped;
  for (int corner = 0; corner < 1 << kDims; ++corner) {
    const int z = corner >> 2, y = corner >> 1 & 1, x = corner & 1;
    if (mapped) {
      const int32_t oz = kDims == 3 ? block.offset[0][z][i] : 0, oy = block.offset[1][y][i],
                    ox = block.offset[2][x][i];
      cell.corner[corner] = (oz | oy | ox) < 0 ? kOutside : oz + oy + ox;
    } else {
      cell.corner[corner] =
          block.index[i] + static_cast<int32_t>(z * step_along(plan.axis[0]) + y * step_along(plan.axis[1]) +
                                                x * step_along(plan.axis[2]));
    }
  }
  return cell;
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
      [&](int64_t c) __attribute__((always_inline)) {
        narrow(out + c, cell.template sample<float>([&](int32_t at) __attribute__((always_inline)) {
          return at < 0 ? 0.0f : widen(image[at * channels + c]);
        }));
      });
}

template <class T>
EK_INLINE void nearest_channels(const T* image, int64_t channels, int32_t index, T* out) {
  for (int64_t c = 0; c < channels; ++c) {
    if (index < 0) {
      narrow(out + c, index == kUnknown ? __builtin_nanf("") : 0.0f);
    } else {
      out[c] = image[index * channels + c];
    }
  }
}

template <class T, int kDims>
EK_INLINE void cubic_channels(const T* image, int64_t channels, const Block& block, int i, T* out) {
  for (int64_t c = 0; c < channels; ++c) {
    float total = 0.0f;
    for (int k = 0; k < (kDims == 3 ? 4 : 1); ++k) {
      const int32_t z = kDims == 3 ? block.offset[0][k][i] : 0;
      float plane = 0.0f;
      for (int j = 0; j < 4; ++j) {
        const int32_t y = block.offset[1][j][i];
        float line = 0.0f;
        for (int t = 0; t < 4; ++t) {
          const int32_t x = block.offset[2][t][i];
          const float voxel = (z | y | x) < 0 ? 0.0f : widen(image[(int64_t{z} + y + x) * channels + c]);
          line = line + voxel * block.weight[2][t][i];
        }
        plane = plane + line * block.weight[1][j][i];
      }
      total = kDims == 3 ? total + plane * block.weight[0][k][i] : plane;
    }
    narrow(out + c, total);
  }
}

template <class T, int kDims, int kOrder>
void fetch_last(const SamplePlan& plan, const Row& row, int64_t x, int count, const Block& block) {
  const Sample& args = plan.args;
  const int64_t channels = args.image.c;
  const T* image = args.image.as<const T>() + row.n * channels * args.image.voxels();
  T* out = args.out.as<T>() + (row.n * args.out.voxels() + row.first + x) * channels;
  for (int i = 0; i < count; ++i, out += channels) {
    if constexpr (kOrder == 0) {
      nearest_channels(image, channels, block.index[i], out);
    } else if constexpr (kOrder == 1) {
      linear_channels<T, kDims>(plan, image, block, i, out);
    } else {
      cubic_channels<T, kDims>(image, channels, block, i, out);
    }
  }
}

}  // namespace EK_ISA
}  // namespace ek
