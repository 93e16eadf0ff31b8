#include "device.h"
#include "jacobian/jacobian.h"
#include "tensors.h"

namespace test {
namespace {

// Makes an argument wrong in one way that has to be noticed before memory is touched.
void spoil(Source& source, ek::JacobianDeterminant& args) {
  switch (source.below(8)) {
    case 0:
      args.flow.c = source.any<int64_t>({0, 1, 4, INT64_MIN, INT64_MAX});
      break;
    case 1:
      args.out.c = 2;
      break;
    case 2:
      args.out.w += 1;
      break;
    case 3:
      args.out.n = 0;
      break;
    case 4:
      args.dims = source.any({0, 1, 4, -3});
      break;
    case 5:
      args.flow.type = source.any({ek::Type::kUint8, ek::Type::kInt16});
      break;
    case 6:
      args.out.type = ek::Type::kFloat16;
      break;
    default:
      args.flow.channels_last = true;
  }
}

void exercise(Source& source, Check& check) {
  ek::JacobianDeterminant args;
  args.dims = static_cast<int>(source.any({3, 2}));
  args.flow = shape(source, source.between(1, 2), args.dims, args.dims);
  args.flow.type = source.any({ek::Type::kFloat32, ek::Type::kFloat16});
  args.out = args.flow;
  args.out.c = 1;
  args.out.type = ek::Type::kFloat32;
  const Stored flow(source, args.flow, source.any({2.0f, 0.5f, 1000.0f}));
  args.flow.data = flow.data();
  const int64_t voxels = args.out.elements(), batch = args.flow.n;
  const bool count = source.one_in(2), only_count = count && source.one_in(3);
  const bool bad = !only_count && source.one_in(12);
  if (bad) spoil(source, args);
  const int64_t skip = source.between(0, 3);
  check.all(
      [&](Run& run) {
        ek::JacobianDeterminant call = args;
        if (!only_count) call.out.data = run.output<float>(voxels, skip);
        if (count) call.folding = run.output<int64_t>(batch);
        if (run.as_device) return as_device(call);
        ek::jacobian_determinant(call, run.isa, run.parallel);
      },
      true);
  if (bad) check.refuses();
}

const Register registered("jacobian_determinant", exercise);

}  // namespace
}  // namespace test
