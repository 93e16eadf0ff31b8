#include "filter/filter.h"

#include <algorithm>
#include <string>

#include "common/error.h"

namespace ek {
namespace {

// Of a worker's buffer. With the planes that a stage reads it stays in the cache of a core.
constexpr int64_t kSlabElements = int64_t{1} << 17;

void check_tables(const AxisFilter& args) {
  for (int64_t size : {args.outer, args.inner, args.in_size, args.out_size}) {
    require(size >= 1 && size <= kMaxElements, "an axis is empty or too long");
  }
  require(args.in_size <= kMaxAxis && args.out_size <= kMaxAxis, "the filtered axis is too long");
  require(args.columns >= args.out_size && args.columns % kColumns == 0,
          "columns must be padded to a multiple of 16");
  const auto inside = [&](int32_t index) { return index >= 0 && index < args.in_size; };
  require(std::all_of(args.base, args.base + args.columns, inside), "base has an index outside");
  require(std::all_of(args.index, args.index + args.taps * args.columns, inside), "index has one outside");
}

void check_apart(const void* in, int64_t in_bytes, const void* out, int64_t out_bytes) {
  const auto from = reinterpret_cast<std::uintptr_t>(in), to = reinterpret_cast<std::uintptr_t>(out);
  require(to >= from + static_cast<std::uintptr_t>(in_bytes) ||
              from >= to + static_cast<std::uintptr_t>(out_bytes),
          "out overlaps the input");
}

// Elements of [outer, size 0, size 1, size 2, inner].
int64_t elements_of(const char* name, const FilterChain& args, const int64_t* size) {
  int64_t elements = 1;
  for (int64_t axis : {args.outer, args.inner, size[0], size[1], size[2]}) {
    require(axis >= 1 && axis <= kMaxElements, "an axis is empty or too long");
    elements *= axis;
    require(elements <= kMaxElements, std::string(name) + " has more than 2^31 - 1 elements");
  }
  return elements;
}

}  // namespace

void check(const AxisFilter& args) {
  check_tables(args);
  const bool widens = args.out_type == Type::kFloat32, narrows = args.in_type == Type::kFloat32;
  require(widens || narrows || args.in_type == args.out_type,
          "in and out must have the same type, or one of them be float32");
  require(args.inner > 1 || narrows, "lines of single elements must be float32");
  const int64_t lines = args.outer * args.inner;
  check_apart(args.in, lines * args.in_size * size_of(args.in_type), args.out,
              lines * args.out_size * size_of(args.out_type));
}

void filter_axis(const AxisFilter& args, Isa isa, const Parallel& parallel) {
  check(args);
  const FilterPlan plan = cut_filter(args);
  parallel(plan.tasks, EK_CHOOSE_BODY(isa, filter_tasks), &plan);
}

ChainPlan plan_chain(const FilterChain& args) {
  require(args.stages >= 1 && args.stages <= kMaxStages, "a chain has 1 to 3 stages");
  require(args.in_type == args.out_type || args.out_type == Type::kFloat32,
          "out must be like in, or float32");
  int64_t elements = elements_of("in", args, args.size);
  const int64_t in_bytes = elements * size_of(args.in_type);
  ChainPlan plan;
  plan.args = args;
  int64_t size[kMaxStages] = {args.size[0], args.size[1], args.size[2]}, largest = 0;
  int seen = 0;
  for (int s = 0; s < args.stages; ++s) {
    const FilterStage& stage = args.stage[s];
    require(stage.axis >= 0 && stage.axis < kMaxStages && !(seen >> stage.axis & 1), "axes must differ");
    require(stage.axis > 0 || s == 0, "axis 0 must come first");
    seen |= 1 << stage.axis;
    require(stage.size >= 1 && stage.size <= kMaxAxis, "the filtered axis is empty or too long");
    check_tables(stage_filter(args, stage, size));
    elements = elements_of("out", args, size);
    if (s + 1 < args.stages) largest = std::max(largest, size[1] * size[2] * args.inner);
  }
  check_apart(args.in, in_bytes, args.out, elements * size_of(args.out_type));
  plan.mixes_planes = args.stage[0].axis == 0;
  plan.new_planes = size[0];
  plan.new_plane = size[1] * size[2] * args.inner;
  int64_t inner = args.inner;
  for (int axis = args.stage[0].axis + 1; axis < kMaxStages; ++axis) inner *= args.size[axis];
  plan.widens = inner == 1 && args.in_type != Type::kFloat32;
  const int64_t plane = args.size[1] * args.size[2] * args.inner;
  const int64_t widest = std::max({largest, plan.new_plane, plan.widens ? plane : 0});
  // The tables of lines of single elements are read in whole vectors: they are not cut.
  const bool whole = plan.mixes_planes && inner == 1;
  plan.planes = whole ? size[0] : std::clamp<int64_t>(kSlabElements / widest, 1, size[0]);
  plan.slabs = (size[0] + plan.planes - 1) / plan.planes;
  plan.space = std::max(largest * plan.planes,
                        plan.widens ? plane * (plan.mixes_planes ? args.size[0] : plan.planes) : 0);
  plan.space = aligned(plan.space * 4) / 4;
  plan.workers.bytes = 2 * plan.space * 4;
  plan.workers.tasks = args.outer * plan.slabs;
  return plan;
}

void filter_axes(const FilterChain& args, Isa isa, const Parallel& parallel) {
  ChainPlan plan = plan_chain(args);
  plan.workers.workspace = args.workspace;
  parallel(std::min<int64_t>(args.workspace.workers, plan.workers.tasks), EK_CHOOSE_BODY(isa, chain_workers),
           &plan);
}

}  // namespace ek
