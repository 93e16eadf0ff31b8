// Sampling where a normalised grid or an affine map says: the output has a grid of its own.
#include "device.h"
#include "sample/sample.h"
#include "tensors.h"

namespace test {
namespace {

void place_by_grid(Source& source, ek::Sample& args) {
  args.source = ek::Source::kGrid;
  args.align_corners = source.one_in(2);
  args.fold = source.one_in(3);
  args.coordinates = args.out;
  args.coordinates.c = args.dims;
  args.coordinates.type = ek::Type::kFloat32;
  args.coordinates.channels_last = true;
}

void place_by_matrix(Source& source, ek::Sample& args) {
  args.source = ek::Source::kAffine;
  Random random(source.bits());
  const double scale = source.any({1.0, 0.1, 1000.0, 1e7});
  for (int row = 0; row < 3; ++row) {
    for (int column = 0; column < 4; ++column) {
      const double noise = static_cast<double>(random.between(-1000, 1000)) / 1000;
      args.matrix[row][column] = (row == column) + noise * (column == 3 ? 4 * scale : 0.1 * scale);
    }
  }
}

// Makes an argument wrong in one way that has to be noticed before memory is touched.
void spoil(Source& source, ek::Sample& args) {
  const bool grid = args.source == ek::Source::kGrid;
  switch (source.below(grid ? 8 : 6)) {
    case 0:
      args.image.c += 1;
      break;
    case 1:
      args.out.n += 1;
      break;
    case 2:
      args.out.type = args.out.type == ek::Type::kUint8 ? ek::Type::kFloat32 : ek::Type::kUint8;
      break;
    case 3:
      args.finish = ek::Finish::kAddFlow;
      break;
    case 4:
      args.out.data = args.image.data;
      break;
    case 5:
      if (grid) {
        args.coordinates.type = ek::Type::kFloat16;
      } else {
        args.matrix[source.below(3)][source.below(4)] = source.any({1e300, 16777216.0, __builtin_nan("")});
      }
      break;
    case 6:
      args.coordinates.w += 1;
      break;
    default:
      args.coordinates.channels_last = false;
  }
}

void exercise(Source& source, Check& check) {
  ek::Sample args;
  args.dims = static_cast<int>(source.any({3, 2}));
  const int64_t n = source.between(1, 2), c = source.between(1, 5);
  args.image = shape(source, n, c, args.dims);
  args.image.type = source.any({ek::Type::kFloat32, ek::Type::kFloat16, ek::Type::kUint8, ek::Type::kInt16});
  args.image.channels_last = source.one_in(3);
  args.out = shape(source, n, c, args.dims);
  args.out.type = args.image.type;
  args.out.channels_last = args.image.channels_last;
  args.order = source.any({1, 0, 3});
  args.boundary = source.any({ek::Boundary::kEdge, ek::Boundary::kZero, ek::Boundary::kMirror,
                              ek::Boundary::kReflect, ek::Boundary::kWrap});
  if (source.one_in(2)) args.cubic = -0.75f;
  if (source.one_in(2)) {
    place_by_matrix(source, args);
  } else {
    place_by_grid(source, args);
  }
  const Stored image(source, args.image, 100.0f);
  args.image.data = image.data();
  const Stored grid(source, args.coordinates, source.any({1.0f, 1.2f, 50.0f}));
  args.coordinates.data = grid.data();
  const int64_t size = args.out.elements(), skip = source.between(0, 3);
  const ek::Type type = args.out.type;
  const bool bad = source.one_in(12);
  if (bad) spoil(source, args);
  check.all(
      [&](Run& run) {
        ek::Sample call = args;
        void* out = output_like(run, type, size, skip);
        if (!call.out.data) call.out.data = out;
        if (run.as_device) return as_device(call);
        ek::sample(call, run.isa, run.parallel);
      },
      true);
  if (bad) check.refuses();
}

const Register registered("sample", exercise);

}  // namespace
}  // namespace test
