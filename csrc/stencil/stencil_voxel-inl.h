// What iterations over neighbours need on a device, one thread a voxel. Included after
// common/simd_device-inl.h.
#pragma once

#include "common/box-inl.h"
#include "common/sum-inl.h"
#include "stencil/stencil_plan.h"

namespace ek {
namespace EK_ISA {

// The memory of a channel: fields of its voxels, and sums of its rows in the parts they are made of.
struct DeviceStencil {
  Tensor image, out;  // see StencilPass
  float* state;       // [fields, d, h, w]
  double* parts;      // [d * h, 2, kSumParts]
  double* sums;       // [d * h, 2]

  EK_MEMBER int64_t rows() const { return image.d * image.h; }
  EK_MEMBER int64_t voxels() const { return image.d * image.h * image.w; }
  EK_MEMBER float* field(int which) const { return state + which * voxels(); }
  EK_MEMBER int64_t at(int64_t z, int64_t y, int64_t x) const { return (z * image.h + y) * image.w + x; }
};

inline int64_t device_stencil_bytes(int fields, const Tensor& image) {
  const int64_t state = aligned(fields * image.voxels() * static_cast<int64_t>(sizeof(float)));
  const int64_t sums = image.d * image.h * 2 * static_cast<int64_t>(sizeof(double));
  return state + aligned(sums * kSumParts) + aligned(sums);
}

inline DeviceStencil device_stencil(int fields, const Tensor& image, const Tensor& out, char* memory) {
  DeviceStencil stencil = {image, out, reinterpret_cast<float*>(memory), nullptr, nullptr};
  const int64_t state = aligned(fields * stencil.voxels() * static_cast<int64_t>(sizeof(float)));
  const int64_t sums = stencil.rows() * 2 * static_cast<int64_t>(sizeof(double));
  stencil.parts = reinterpret_cast<double*>(memory + state);
  stencil.sums = reinterpret_cast<double*>(memory + state + aligned(sums * kSumParts));
  return stencil;
}

// Rows and items of kernels that have a thread per voxel.
struct EachVoxel {
  DeviceStencil stencil;

  EK_MEMBER int64_t rows() const { return stencil.rows(); }
  EK_MEMBER int64_t items() const { return stencil.image.w; }
};

// The channel as float32, in some of the fields.
struct BeginVoxel : EachVoxel {
  int first, last;

  EK_MEMBER void operator()(uint32_t row, uint32_t x) const {
    const uint32_t h = static_cast<uint32_t>(stencil.image.h), z = row / h, y = row - z * h;
    const float value = read_voxel(stencil.image, 0, z, y, x, Boundary::kEdge);
    for (int i = first; i <= last; ++i) stencil.field(i)[stencil.at(z, y, x)] = value;
  }
};

struct ClearVoxel : EachVoxel {
  int fields;

  EK_MEMBER void operator()(uint32_t row, uint32_t x) const {
    for (int i = 0; i < fields; ++i) stencil.field(i)[row * stencil.image.w + x] = 0.0f;
  }
};

struct FinishVoxel : EachVoxel {
  int which;

  EK_MEMBER void operator()(uint32_t row, uint32_t x) const {
    const int64_t at = row * stencil.image.w + x;
    write_voxel(stencil.out, at, stencil.field(which)[at]);
  }
};

// The parts of the sums of a row, a thread each. `Terms` has the two terms of a voxel as
// operator()(z, y, x, terms), and the columns that count.
template <class Terms>
struct PartOfRow {
  DeviceStencil stencil;
  Terms terms;

  EK_MEMBER int64_t rows() const { return stencil.rows(); }
  EK_MEMBER int64_t items() const { return kSumParts; }
  EK_MEMBER void operator()(uint32_t row, uint32_t part) const {
    const uint32_t h = static_cast<uint32_t>(stencil.image.h), z = row / h, y = row - z * h;
    double sums[2] = {};
    for (int64_t x = terms.begin + part; x < terms.end; x += kSumParts) {
      double of[2] = {};
      terms(z, y, x, of);
      sums[0] += of[0];
      sums[1] += of[1];
    }
    for (int i = 0; i < 2; ++i) stencil.parts[(2 * row + i) * kSumParts + part] = sums[i];
  }
};

// The sums of a row.
struct SumOfRow {
  DeviceStencil stencil;

  EK_MEMBER int64_t rows() const { return stencil.rows(); }
  EK_MEMBER int64_t items() const { return 2; }
  EK_MEMBER void operator()(uint32_t row, uint32_t which) const {
    stencil.sums[2 * row + which] = sum_of_parts(stencil.parts + (2 * row + which) * kSumParts);
  }
};

template <class Terms, class Run>
void sum_rows(const DeviceStencil& stencil, const Terms& terms, const Run& run) {
  run(PartOfRow<Terms>{stencil, terms});
  run(SumOfRow{stencil});
}

}  // namespace EK_ISA
}  // namespace ek
