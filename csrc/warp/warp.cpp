#include "warp/warp.h"

#include <algorithm>
#include <string>

#include "common/error.h"

namespace ek {
namespace {

// Enough voxels that handing out a task costs nothing, few enough that threads finish together.
constexpr int64_t kVoxelsPerTask = 16384;

void check(const Warp& args) {
  const auto &image = args.image, &flow = args.flow;
  require(args.dims == 2 || args.dims == 3, "dims must be 2 or 3, got " + std::to_string(args.dims));
  require(args.order == 0 || args.order == 1, "order must be 0 or 1, got " + std::to_string(args.order));
  require(args.dims == 3 || image.d == 1, "a 2-D image must have depth 1");
  check_size("image", image.n, image.c, image.d, image.h, image.w);
  check_size("flow", flow.n, flow.c, flow.d, flow.h, flow.w);
  require(flow.c == args.dims, "flow must have one component per dimension");
  require(flow.n == image.n && flow.d == image.d && flow.h == image.h && flow.w == image.w,
          "image and flow differ in batch or spatial size");
  const auto& out = args.out;
  require(out.n == image.n && out.c == image.c && out.d == image.d && out.h == image.h && out.w == image.w,
          "out and image differ in shape");
  require(!overlap(out, image) && !overlap(out, flow), "out overlaps an input");
}

RangeFn body(Isa isa) {
  switch (isa) {
#if EK_X86
    case Isa::kAvx512:
      return avx512::warp_tasks;
    case Isa::kAvx2:
      return avx2::warp_tasks;
#elif EK_ARM64
    case Isa::kNeon:
      return neon::warp_tasks;
#endif
    default:
      return scalar::warp_tasks;
  }
}

}  // namespace

void warp(const Warp& args, Isa isa, const Parallel& parallel) {
  check(args);
  WarpPlan plan;
  plan.args = args;
  plan.rows = args.image.n * args.image.d * args.image.h;
  plan.rows_per_task = std::max<int64_t>(1, kVoxelsPerTask / args.image.w);
  parallel((plan.rows + plan.rows_per_task - 1) / plan.rows_per_task, body(isa), &plan);
}

}  // namespace ek
