#include "jacobian/jacobian.h"

#include <algorithm>
#include <string>

#include "common/error.h"

namespace ek {
namespace {

// A plane of a task's column: six of its size are read between the first and the last use of a voxel.
constexpr int64_t kBlockVoxels = 8192;
// Enough voxels that handing out a task costs nothing, few enough that threads finish together.
constexpr int64_t kVoxelsPerTask = 131072;

bool overlaps(const void* a, int64_t a_bytes, const void* b, int64_t b_bytes) {
  const auto from = reinterpret_cast<std::uintptr_t>(a), to = reinterpret_cast<std::uintptr_t>(b);
  return from < to + static_cast<std::uintptr_t>(b_bytes) && to < from + static_cast<std::uintptr_t>(a_bytes);
}

JacobianPlan plan_of(const JacobianDeterminant& args) {
  const Tensor& flow = args.flow;
  const auto parts = [](int64_t length, int64_t part) { return (length + part - 1) / part; };
  JacobianPlan plan;
  plan.args = args;
  plan.rows = std::clamp<int64_t>((flow.d == 1 ? kVoxelsPerTask : kBlockVoxels) / flow.w, 1, flow.h);
  plan.columns = parts(flow.h, plan.rows);
  plan.planes = std::clamp<int64_t>(kVoxelsPerTask / (plan.rows * flow.w), 1, flow.d);
  plan.layers = parts(flow.d, plan.planes);
  return plan;
}

RangeFn body(Isa isa) {
  switch (isa) {
#if EK_X86
    case Isa::kAvx512:
      return avx512::jacobian_tasks;
    case Isa::kAvx2:
      return avx2::jacobian_tasks;
#elif EK_ARM64
    case Isa::kNeon:
      return neon::jacobian_tasks;
#endif
    default:
      return scalar::jacobian_tasks;
  }
}

}  // namespace

void check(const JacobianDeterminant& args) {
  const Tensor &flow = args.flow, &out = args.out;
  require(args.dims == 2 || args.dims == 3, "dims must be 2 or 3, got " + std::to_string(args.dims));
  require(flow.type == Type::kFloat32 || flow.type == Type::kFloat16, "flow must be float32 or float16");
  require(!flow.channels_last, "flow must be planar");
  check_size("flow", flow);
  require(flow.c == args.dims, "flow must have one component per dimension");
  require(args.dims == 3 || flow.d == 1, "a 2-D flow must have depth 1");
  require(out.data || args.folding, "neither out nor folding is asked for");
  const int64_t counts = flow.n * static_cast<int64_t>(sizeof(int64_t));
  if (out.data) {
    require(out.type == Type::kFloat32 && !out.channels_last, "out must be float32");
    require(out.n == flow.n && out.c == 1 && out.same_grid(flow), "out and flow differ in batch or grid");
    require(!overlap(out, flow), "out overlaps flow");
    require(!args.folding || !overlaps(args.folding, counts, out.data, out.bytes()), "folding overlaps out");
  }
  require(!args.folding || !overlaps(args.folding, counts, flow.data, flow.bytes()), "folding overlaps flow");
}

void jacobian_determinant(const JacobianDeterminant& args, Isa isa, const Parallel& parallel) {
  check(args);
  if (args.folding) std::fill_n(args.folding, args.flow.n, 0);
  const JacobianPlan plan = plan_of(args);
  parallel(args.flow.n * plan.columns * plan.layers, body(isa), &plan);
}

}  // namespace ek
