#include "filter/filter.h"

#include <algorithm>

#include "common/error.h"

namespace ek {
namespace {

// Of a task: small enough that the lines of all taps stay in the cache.
constexpr int64_t kTile = 1024;
constexpr int64_t kVoxelsPerTask = 16384;

}  // namespace

void check(const AxisFilter& args) {
  for (int64_t size : {args.outer, args.inner, args.in_size, args.out_size}) {
    require(size >= 1 && size <= kMaxElements, "an axis is empty or too long");
  }
  require(args.in_size <= kMaxAxis && args.out_size <= kMaxAxis, "the filtered axis is too long");
  const bool widens = args.out_type == Type::kFloat32, narrows = args.in_type == Type::kFloat32;
  require(widens || narrows || args.in_type == args.out_type,
          "in and out must have the same type, or one of them be float32");
  require(args.inner > 1 || narrows, "lines of single elements must be float32");
  require(args.columns >= args.out_size && args.columns % kColumns == 0,
          "columns must be padded to a multiple of 16");
  const auto inside = [&](int32_t index) { return index >= 0 && index < args.in_size; };
  require(std::all_of(args.base, args.base + args.columns, inside), "base has an index outside");
  require(std::all_of(args.index, args.index + args.taps * args.columns, inside), "index has one outside");
  const char *in = static_cast<const char*>(args.in), *out = static_cast<const char*>(args.out);
  const int64_t in_bytes = args.outer * args.in_size * args.inner * size_of(args.in_type);
  const int64_t out_bytes = args.outer * args.out_size * args.inner * size_of(args.out_type);
  require(out >= in + in_bytes || in >= out + out_bytes, "out overlaps the input");
}

void filter_axis(const AxisFilter& args, Isa isa, const Parallel& parallel) {
  check(args);
  FilterPlan plan;
  plan.args = args;
  plan.tile = std::min(args.inner, kTile);
  plan.tiles = (args.inner + plan.tile - 1) / plan.tile;
  plan.lines = std::max<int64_t>(1, kVoxelsPerTask / args.out_size);
  const int64_t tasks = args.inner > 1 ? args.outer * plan.tiles : (args.outer + plan.lines - 1) / plan.lines;
  parallel(tasks, EK_CHOOSE_BODY(isa, filter_tasks), &plan);
}

}  // namespace ek
