#include "device.h"
#include "sample/sample.h"
#include "tensors.h"

namespace test {
namespace {

// Makes an argument wrong in one way that has to be noticed before memory is touched.
void spoil(Source& source, ek::Sample& args) {
  const int64_t wrong =
      source.any<int64_t>({0, -1, 1, 2, 7, int64_t{1} << 24, int64_t{1} << 40, INT64_MIN, INT64_MAX});
  switch (source.below(10)) {
    case 0:
      args.coordinates.c = wrong == args.dims ? 9 : wrong;
      break;
    case 1:
      args.image.c = args.out.c + wrong % 5 + 5;
      break;
    case 2:
      args.out.w += 1;
      break;
    case 3:
      args.coordinates.h = wrong == args.image.h ? 0 : wrong;
      break;
    case 4:
      args.image.n = wrong == args.coordinates.n ? 0 : wrong;
      break;
    case 5:
      args.dims = source.any({0, 1, 4, -3});
      break;
    case 6:
      args.order = source.any({2, -1, 99});
      break;
    case 7:
      args.out.channels_last = !args.out.channels_last;
      break;
    case 8:
      args.coordinates.type = ek::Type::kUint8;
      break;
    default:
      args.out.data =
          source.one_in(2) ? args.image.as<char>() + args.image.bytes() - 1 : args.coordinates.data;
  }
}

void exercise(Source& source, Check& check) {
  ek::Sample args;
  args.dims = static_cast<int>(source.any({3, 2}));
  const int64_t n = source.between(1, 2), c = source.between(1, 6);
  int64_t left = source.budget();
  const auto axis = [&] {
    const int64_t length = source.axis(left);
    left /= length;
    return length;
  };
  const int64_t w = axis(), h = axis(), d = args.dims == 3 ? axis() : 1, voxels = d * h * w;
  const auto lengths = [&](ek::Tensor& tensor, int64_t channels, ek::Type type) {
    tensor.n = n, tensor.c = channels, tensor.d = d, tensor.h = h, tensor.w = w, tensor.type = type;
  };
  const ek::Type type = source.any(
      {ek::Type::kFloat32, ek::Type::kFloat16, ek::Type::kUint8, ek::Type::kInt16, ek::Type::kFloat32});
  lengths(args.image, c, type);
  lengths(args.coordinates, args.dims, source.any({ek::Type::kFloat32, ek::Type::kFloat16}));
  lengths(args.out, c, type);
  args.image.channels_last = args.out.channels_last = source.one_in(3);
  args.order = source.any({1, 0, 3});
  args.boundary = source.any({ek::Boundary::kEdge, ek::Boundary::kZero, ek::Boundary::kMirror,
                              ek::Boundary::kReflect, ek::Boundary::kWrap});
  const bool field = type == ek::Type::kFloat32 && args.coordinates.type == type && c == args.dims;
  if (field && args.order == 1 && !args.image.channels_last && source.one_in(2)) {
    args.finish = ek::Finish::kAddFlow;
    args.scale = source.any({1.0f, 0.5f, 0.0078125f});
  }
  const Stored image(source, args.image, 100.0f);
  const Stored flow(source, args.coordinates, source.any({2.0f, 0.5f, 20.0f, 1000.0f}));
  args.image.data = image.data();
  args.coordinates.data = flow.data();
  const bool bad = source.one_in(12);
  if (bad) spoil(source, args);
  const int64_t skip = source.between(0, 3);
  check.all(
      [&](Run& run) {
        ek::Sample call = args;
        void* out = output_like(run, call.out.type, n * c * voxels, skip);
        if (!call.out.data) call.out.data = out;
        if (run.as_device) return as_device(call);
        ek::sample(call, run.isa, run.parallel);
      },
      true);
  if (bad) check.refuses();
}

const Register registered("warp", exercise);

}  // namespace
}  // namespace test
