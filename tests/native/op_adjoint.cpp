#include "adjoint/adjoint.h"
#include "tensors.h"

namespace test {
namespace {

// Makes an argument wrong in one way that has to be noticed before memory is touched.
void spoil(Source& source, ek::Adjoint& args) {
  switch (source.below(7)) {
    case 0:
      args.flow.c = source.any<int64_t>({0, 1, 4, INT64_MIN, INT64_MAX});
      break;
    case 1:
      args.values.c = args.out.c + 1;
      break;
    case 2:
      args.out.w += 1;
      break;
    case 3:
      args.flow.n = 0;
      break;
    case 4:
      args.order = source.any({2, -1, 99});
      break;
    case 5:
      args.values.type = source.any({ek::Type::kUint8, ek::Type::kFloat16});
      break;
    default:
      args.out.data = source.one_in(2) ? args.values.data : args.flow.data;
  }
}

void exercise(Source& source, Check& check) {
  ek::Adjoint args;
  args.dims = static_cast<int>(source.any({3, 2}));
  args.flow = shape(source, source.between(1, 2), args.dims, args.dims);
  args.values = args.flow;
  args.values.c = source.between(1, 3);
  args.out = args.values;
  args.order = source.any({1, 3, 0});
  args.boundary = source.any({ek::Boundary::kEdge, ek::Boundary::kZero, ek::Boundary::kMirror,
                              ek::Boundary::kReflect, ek::Boundary::kWrap});
  const Stored values(source, args.values, 100.0f);
  const Stored flow(source, args.flow, source.any({2.0f, 0.5f, 20.0f, 1000.0f}));
  args.values.data = values.data();
  args.flow.data = flow.data();
  const bool counted = source.one_in(2);
  ek::Tensor counts = args.values;
  counts.c = 1;
  Array<ek::Reach> reaches(ek::adjoint_reaches(args.values));
  args.reaches = reaches.data();
  const int64_t size = args.out.elements();
  const bool bad = source.one_in(12);
  if (bad) spoil(source, args);
  check.all([&](Run& run) {
    ek::Adjoint call = args;
    float* out = run.output<float>(size, 1);
    if (!call.out.data) call.out.data = out;
    if (counted) {
      call.counts = counts;
      call.counts.data = run.output<float>(counts.elements());
    }
    ek::warp_adjoint(call, run.isa, run.parallel);
  });
  if (bad) check.refuses();
}

const Register registered("warp_adjoint", exercise);

}  // namespace
}  // namespace test
