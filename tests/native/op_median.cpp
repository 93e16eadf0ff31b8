#include "device.h"
#include "median/median.h"
#include "scratch.h"
#include "tensors.h"

namespace test {
namespace {

// Makes an argument wrong in one way that has to be noticed before memory is touched.
void spoil(Source& source, ek::Median& args) {
  switch (source.below(8)) {
    case 0:
      args.image.c = source.any<int64_t>({0, INT64_MIN, INT64_MAX});
      break;
    case 1:
      args.out.w += 1;
      break;
    case 2:
      args.out.type = ek::Type::kInt32;
      break;
    case 3:
      args.radius = source.any({0, 4, -1});
      break;
    case 4:
      args.dims = source.any({0, 1, 4});
      break;
    case 5:
      args.image.type = args.out.type = ek::Type::kInt64;
      break;
    case 6:
      args.out.n = 0;
      break;
    default:
      args.image.channels_last = true;
  }
}

void exercise(Source& source, Check& check) {
  ek::Median args;
  args.dims = static_cast<int>(source.any({3, 2}));
  args.radius = static_cast<int>(source.between(1, ek::kMaxMedianRadius));
  const int64_t n = source.between(1, 2), c = source.between(1, 2);  // in this order everywhere
  args.image = shape(source, n, c, args.dims);
  args.image.type = source.any({ek::Type::kFloat32, ek::Type::kFloat16, ek::Type::kUint8, ek::Type::kInt16});
  args.boundary = source.any({ek::Boundary::kZero, ek::Boundary::kEdge, ek::Boundary::kMirror,
                              ek::Boundary::kReflect, ek::Boundary::kWrap});
  // As a device does it, a large window is read 32 times.
  const int64_t side = 2 * args.radius + 1, window = side * side * (args.dims == 3 ? side : 1);
  if (args.image.elements() * window > 1 << 16) args.radius = 1;
  args.out = args.image;
  const Stored image(source, args.image, source.any({2.0f, 0.5f, 1000.0f}));
  args.image.data = image.data();
  const int64_t elements = args.out.elements(), skip = source.between(0, 3);
  const ek::Type type = args.out.type;
  const int workers = static_cast<int>(source.between(1, 4));
  const int64_t bytes = ek::plan_median(args).workers.bytes;
  const bool bad = source.one_in(12);
  if (bad) spoil(source, args);
  check.all(
      [&](Run& run) {
        ek::Median call = args;
        call.out.data = output_like(run, type, elements, skip);
        if (run.as_device) return as_device(call);
        const Scratch scratch(workers, bytes);
        call.workspace = scratch.workspace();
        ek::median(call, run.isa, run.parallel);
      },
      true);
  if (bad) check.refuses();
}

const Register registered("median", exercise);

}  // namespace
}  // namespace test
