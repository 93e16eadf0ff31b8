// What registration needs beside sampling, on a device as on the processor.
#include <cmath>

#include "adjoint/adjoint.h"
#include "device.h"
#include "filter/filter.h"
#include "gradient/gradient.h"
#include "inverse/inverse.h"
#include "labels/labels.h"
#include "points/points.h"
#include "tensors.h"

namespace test {
namespace {

ek::Boundary boundary(Source& source) {
  return source.any({ek::Boundary::kEdge, ek::Boundary::kZero, ek::Boundary::kMirror, ek::Boundary::kReflect,
                     ek::Boundary::kWrap});
}

float reach(Source& source) { return source.any({2.0f, 0.5f, 20.0f, 1000.0f}); }

void gradient(Source& source, Check& check) {
  ek::Gradient args;
  args.dims = static_cast<int>(source.any({3, 2}));
  args.flow = args.out = shape(source, source.between(1, 2), args.dims, args.dims);
  args.image = args.flow;
  args.image.c = source.between(1, 3);
  args.cotangent = args.image;
  args.order = source.any({1, 3, 0});
  args.boundary = boundary(source);
  const Stored image(source, args.image, 100.0f), cotangent(source, args.image, 1.0f);
  const Stored flow(source, args.flow, reach(source));
  args.image.data = image.data();
  args.cotangent.data = cotangent.data();
  args.flow.data = flow.data();
  if (source.one_in(12)) args.order = 2;
  check.all(
      [&](Run& run) {
        ek::Gradient call = args;
        call.out.data = run.output<float>(args.flow.elements(), 1);
        if (run.as_device) return as_device(call);
        ek::warp_gradient(call, run.isa, run.parallel);
      },
      true);
}

void inverse(Source& source, Check& check) {
  ek::Inverse args;
  args.dims = static_cast<int>(source.any({3, 2}));
  args.flow = args.out = shape(source, source.between(1, 2), args.dims, args.dims);
  args.boundary = boundary(source);
  args.iterations = static_cast<int>(source.between(0, 8));
  args.tolerance = source.any({1e-3f, 0.5f, 0.0f});
  const Stored flow(source, args.flow, source.any({0.5f, 2.0f, 20.0f}));
  args.flow.data = flow.data();
  if (source.one_in(12)) args.iterations = -1;
  check.all(
      [&](Run& run) {
        ek::Inverse call = args;
        call.out.data = run.output<float>(args.flow.elements(), 1);
        call.residual = run.output<float>(args.flow.n);
        if (run.as_device) return as_device(call);
        ek::invert(call, run.isa, run.parallel);
      },
      true);
}

template <class T>
void labels_of(Source& source, Check& check, ek::Labels& args) {
  // Few labels, so that some meet again in a cell; among them those with the highest bit set.
  Array<T> labels(args.labels.elements());
  for (int64_t i = 0; i < labels.size(); ++i)
    labels[i] = static_cast<T>(T(source.below(4)) << (8 * sizeof(T) - 2));
  args.labels.data = labels.data();
  check.all(
      [&](Run& run) {
        ek::Labels call = args;
        call.out.data = run.output<T>(labels.size());
        if (run.as_device) return as_device(call);
        ek::warp_labels(call, run.isa, run.parallel);
      },
      true);
}

void labels(Source& source, Check& check) {
  ek::Labels args;
  args.dims = static_cast<int>(source.any({3, 2}));
  args.flow = shape(source, source.between(1, 2), args.dims, args.dims);
  args.labels = args.flow;
  args.labels.c = source.between(1, 2);
  args.labels.type = source.any({ek::Type::kUint8, ek::Type::kInt16, ek::Type::kInt32, ek::Type::kInt64});
  args.out = args.labels;
  args.is_signed = source.one_in(2);
  args.linear = source.one_in(2);
  args.boundary = boundary(source);
  const Stored flow(source, args.flow, reach(source));
  args.flow.data = flow.data();
  if (source.one_in(12)) args.flow.w += 1;
  switch (args.labels.type) {
    case ek::Type::kUint8:
      return labels_of<uint8_t>(source, check, args);
    case ek::Type::kInt16:
      return labels_of<uint16_t>(source, check, args);
    case ek::Type::kInt32:
      return labels_of<uint32_t>(source, check, args);
    default:
      return labels_of<uint64_t>(source, check, args);
  }
}

void points(Source& source, Check& check) {
  ek::MovePoints args;
  args.dims = static_cast<int>(source.any({3, 2}));
  args.flow = shape(source, source.between(1, 2), args.dims, args.dims);
  args.points = args.flow;
  args.points.d = args.points.h = 1;
  args.points.w = source.axis(1000);
  args.points.channels_last = true;
  args.out = args.points;
  args.boundary = boundary(source);
  const Stored flow(source, args.flow, 2.0f), places(source, args.points, source.any({5.0f, 50.0f}));
  args.flow.data = flow.data();
  args.points.data = places.data();
  if (source.one_in(12)) args.points.h = 2;
  check.all(
      [&](Run& run) {
        ek::MovePoints call = args;
        call.out.data = run.output<float>(args.out.elements());
        if (run.as_device) return as_device(call);
        ek::move_points(call, run.isa, run.parallel);
      },
      true);
}

// Random tables: what they mean is another matter.
void filter(Source& source, Check& check) {
  const ek::Type kinds[] = {ek::Type::kFloat32, ek::Type::kFloat16, ek::Type::kUint8, ek::Type::kInt16};
  ek::AxisFilter args;
  args.outer = source.between(1, 5);
  args.in_size = source.axis(300);
  args.out_size = source.axis(300);
  args.inner = source.one_in(2) ? 1 : source.axis(40);
  args.taps = source.between(1, 5);
  args.columns = (args.out_size + ek::kColumns - 1) / ek::kColumns * ek::kColumns;
  if (source.one_in(2) || args.inner == 1) {
    args.out_type = kinds[source.below(4)];
  } else {
    args.in_type = kinds[source.below(4)];
    args.out_type = source.one_in(2) ? args.in_type : ek::Type::kFloat32;
  }
  Array<int32_t> base(args.columns), index(args.taps * args.columns);
  for (int64_t i = 0; i < base.size(); ++i) base[i] = static_cast<int32_t>(source.below(args.in_size));
  for (int64_t i = 0; i < index.size(); ++i) index[i] = static_cast<int32_t>(source.below(args.in_size));
  Array<float> scale(args.columns), weight(index.size());
  for (int64_t i = 0; i < scale.size(); ++i) scale[i] = static_cast<float>(source.below(3)) / 2.0f;
  for (int64_t i = 0; i < weight.size(); ++i) weight[i] = static_cast<float>(source.below(9)) / 8.0f - 0.5f;
  ek::Tensor in;
  in.n = args.outer, in.c = args.in_size, in.d = in.h = 1, in.w = args.inner, in.type = args.in_type;
  const Stored image(source, in, 100.0f);
  args.in = image.data();
  args.base = base.data(), args.index = index.data();
  args.scale = scale.data(), args.weight = weight.data();
  if (source.one_in(12)) base[0] = source.any({-1, static_cast<int32_t>(args.in_size)});
  check.all(
      [&](Run& run) {
        ek::AxisFilter call = args;
        call.out = output_like(run, args.out_type, args.outer * args.out_size * args.inner, 1);
        if (run.as_device) return as_device(call);
        ek::filter_axis(call, run.isa, run.parallel);
      },
      true);
}

// A device sums in another order than the processor, and more exactly: the more parts there are in a sum, the
// further off the latter is.
void require_close(const Check& check, const Array<float>& got, const Array<float>& want, float scale) {
  for (int64_t i = 0; i < got.size(); ++i) {
    if (std::isfinite(got[i]) != std::isfinite(want[i])) check.give_up("one of the sums is finite");
    const float error = std::abs(got[i] - want[i]);
    if (error > 2e-6f * (scale + std::abs(want[i]))) check.give_up("sums differ by " + std::to_string(error));
  }
}

void adjoint(Source& source, Check& check) {
  ek::Adjoint args;
  args.dims = static_cast<int>(source.any({3, 2}));
  args.flow = shape(source, source.between(1, 2), args.dims, args.dims);
  args.values = args.flow;
  args.values.c = source.between(1, 3);
  args.out = args.counts = args.values;
  args.counts.c = 1;
  args.order = source.any({1, 3, 0});
  args.boundary = boundary(source);
  const float scale = source.any({1.0f, 1e-30f, 1e30f});
  Array<float> values(args.values.elements());
  for (int64_t i = 0; i < values.size(); ++i) {
    values[i] = scale * (static_cast<float>(source.below(2001)) / 1000.0f - 1.0f);
  }
  if (source.one_in(4)) values[source.below(values.size())] = source.any({INFINITY, -INFINITY, NAN});
  const Stored flow(source, args.flow, reach(source));
  args.values.data = values.data();
  args.flow.data = flow.data();
  if (source.one_in(12)) args.counts.w += 1;

  const int64_t size = args.out.elements(), count_size = args.flow.n * args.out.voxels();
  Array<float> want(size), want_counts(count_size);
  Array<ek::Reach> reaches(ek::adjoint_reaches(args.values));
  bool forwards = false;
  // All ways are those of a device: its threads in one order and, every other time, in the opposite one.
  check.all([&](Run& run) {
    ek::Adjoint call = args;
    call.out.data = run.output<float>(size);
    call.counts.data = run.output<float>(count_size);
    as_device(call, forwards = !forwards);
    if (!forwards) return;
    ek::Adjoint plain = args;
    plain.out.data = want.data();
    plain.counts.data = want_counts.data();
    plain.reaches = reaches.data();
    ek::warp_adjoint(plain, ek::Isa::kScalar, ek::pool(1));
    Array<float> got(size), got_counts(count_size);
    std::copy_n(call.out.as<const float>(), size, got.data());
    std::copy_n(call.counts.as<const float>(), count_size, got_counts.data());
    const float parts = std::sqrt(static_cast<float>(args.out.voxels()));
    require_close(check, got, want, scale * parts);
    require_close(check, got_counts, want_counts, parts);
  });
}

const Register registered[] = {{"device_filter_axis", filter},   {"device_move_points", points},
                               {"device_warp_adjoint", adjoint}, {"device_warp_gradient", gradient},
                               {"device_invert", inverse},       {"device_warp_labels", labels}};

}  // namespace
}  // namespace test
