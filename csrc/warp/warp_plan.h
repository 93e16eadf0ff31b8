// What a warp is told, as plain data: all that the files of an instruction set may see of it (see
// platform.h).
#pragma once

#include "common/boundary.h"
#include "common/volume.h"

namespace ek {

struct Warp {
  Volume<const float> image;  // [N, C, D, H, W]
  Volume<const float> flow;   // [N, dims, D, H, W], components (z, y, x) or (y, x)
  Volume<float> out;          // like image
  int dims = 3;               // 2: an image with d == 1, displaced in its plane
  int order = 1;              // 0: nearest voxel (halves round up), 1: linear
  Boundary boundary = Boundary::kEdge;
  bool add_image = false;  // out = image + sample: composition of displacement fields when image is one
};

// The work cut into tasks of whole rows, the same for every number of threads.
struct WarpPlan {
  Warp args;
  int64_t rows = 0;
  int64_t rows_per_task = 1;
};

// One body per instruction set; `context` is a WarpPlan.
namespace scalar {
void warp_tasks(const void* context, int64_t begin, int64_t end);
}
namespace avx2 {
void warp_tasks(const void* context, int64_t begin, int64_t end);
}
namespace avx512 {
void warp_tasks(const void* context, int64_t begin, int64_t end);
}
namespace neon {
void warp_tasks(const void* context, int64_t begin, int64_t end);
}

}  // namespace ek
