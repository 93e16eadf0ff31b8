// What sampling is told, as plain data: all that the files of an instruction set may see of it (see
// platform.h).
#pragma once

#include "common/boundary.h"
#include "common/tensor.h"

namespace ek {

// Where output voxel p samples the image.
enum class Source : uint8_t {
  kDisplacement,  // at p + scale * coordinates[:, p]; coordinates [N, dims, D, H, W], (z, y, x) or (y, x)
  kGrid,    // where coordinates[p] says, normalised to [-1, 1]; channels-last, components (x, y, z) or (x, y)
  kAffine,  // at matrix * (p, 1)
};

// What is written, given the sample.
enum class Finish : uint8_t {
  kStore,    // the sample
  kAddFlow,  // scale * (displacement + sample): composition of displacement fields
};

struct Sample {
  Tensor image;        // [N, C, D, H, W]
  Tensor coordinates;  // float32 or float16
  Tensor out;          // type and layout of the image
  int dims = 3;        // 2: d == 1 everywhere, sampled in the plane
  int order = 1;       // 0: nearest voxel (halves up), 1: linear, 3: cubic convolution
  Boundary boundary = Boundary::kEdge;
  Source source = Source::kDisplacement;
  Finish finish = Finish::kStore;
  bool align_corners = false;  // of a grid: -1 and 1 are voxel centres, not outer faces
  bool fold = false;           // of a grid: coordinates are mirrored into the image before they are used
  double matrix[3][4] = {};    // rows z, y, x, columns z, y, x, 1
  float scale = 1.0f;          // of displacements; a power of two, so that scaling is exact
  float cubic = -0.5f;         // the parameter of cubic convolution
};

// Constants of one axis of the image.
struct Axis {
  float size;
  float inverse_period;
  int32_t count;   // of voxels
  int32_t period;  // after which the extended image repeats, under a periodic rule
  int32_t stride;  // in voxels
};

// The work cut into tasks of whole rows of the output, the same for every number of threads.
struct SamplePlan {
  Sample args;
  Axis axis[3];  // z, y, x
  int64_t rows = 0;
  int64_t rows_per_task = 1;
  int64_t band = 1;  // how many rows of a plane are done before the next plane's
};

// One body per instruction set; `context` is a SamplePlan.
namespace scalar {
void sample_tasks(const void* context, int64_t begin, int64_t end);
}
namespace avx2 {
void sample_tasks(const void* context, int64_t begin, int64_t end);
}
namespace avx512 {
void sample_tasks(const void* context, int64_t begin, int64_t end);
}
namespace neon {
void sample_tasks(const void* context, int64_t begin, int64_t end);
}

}  // namespace ek
