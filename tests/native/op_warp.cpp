#include "check.h"
#include "warp/warp.h"

namespace test {
namespace {

// Makes an argument wrong in one way that has to be noticed before memory is touched.
void spoil(Source& source, ek::Warp& args) {
  const int64_t wrong =
      source.any<int64_t>({0, -1, 1, 2, 7, int64_t{1} << 24, int64_t{1} << 40, INT64_MIN, INT64_MAX});
  switch (source.below(8)) {
    case 0:
      args.flow.c = wrong == args.dims ? 9 : wrong;
      break;
    case 1:
      args.image.c = args.out.c + wrong % 5 + 5;
      break;
    case 2:
      args.out.w += 1;
      break;
    case 3:
      args.flow.h = wrong == args.image.h ? 0 : wrong;
      break;
    case 4:
      args.image.n = wrong == args.flow.n ? 0 : wrong;
      break;
    case 5:
      args.dims = source.any({0, 1, 4, -3});
      break;
    case 6:
      args.order = source.any({2, -1, 99});
      break;
    default:
      args.out.data = const_cast<float*>(source.one_in(2) ? args.image.end() - 1 : args.flow.data);
  }
}

void exercise(Source& source, Check& check) {
  ek::Warp args;
  args.dims = static_cast<int>(source.any({3, 2}));
  const int64_t n = source.between(1, 2), c = source.between(1, 3);
  int64_t left = source.budget();
  const auto axis = [&] {
    const int64_t length = source.axis(left);
    left /= length;
    return length;
  };
  const int64_t w = axis(), h = axis(), d = args.dims == 3 ? axis() : 1, voxels = d * h * w;
  const auto lengths = [&](auto& volume, int64_t channels) {
    volume.n = n, volume.c = channels, volume.d = d, volume.h = h, volume.w = w;
  };
  lengths(args.image, c);
  lengths(args.flow, args.dims);
  lengths(args.out, c);
  args.order = source.any({1, 0});
  args.boundary = source.any({ek::Boundary::kEdge, ek::Boundary::kZero});
  args.add_image = source.one_in(3);
  const Array<float> image = floats(source, n * c * voxels, 100.0f);
  const Array<float> flow = floats(source, n * args.dims * voxels, source.any({2.0f, 0.5f, 20.0f, 1000.0f}));
  args.image.data = image.data();
  args.flow.data = flow.data();
  const bool bad = source.one_in(12);
  if (bad) spoil(source, args);
  const int64_t skip = source.between(0, 3);
  check.all([&](Run& run) {
    ek::Warp call = args;
    float* out = run.output<float>(n * c * voxels, skip);
    if (!call.out.data) call.out.data = out;
    ek::warp(call, run.isa, run.parallel);
  });
  if (bad) check.refuses();
}

const Register registered("warp", exercise);

}  // namespace
}  // namespace test
