// Operators that sum over a window.
#include <algorithm>
#include <cmath>
#include <vector>

#include "bilateral/bilateral.h"
#include "device.h"
#include "gaussian/gaussian.h"
#include "guided/guided.h"
#include "tensors.h"

namespace test {
namespace {

ek::Boundary boundary(Source& source) {
  return source.any({ek::Boundary::kMirror, ek::Boundary::kZero, ek::Boundary::kEdge, ek::Boundary::kReflect,
                     ek::Boundary::kWrap});
}

ek::Type type(Source& source) {
  return source.any({ek::Type::kFloat32, ek::Type::kFloat16, ek::Type::kUint8, ek::Type::kInt16});
}

// Memory for some workers, no longer than needed.
class Memory {
 public:
  Memory(const ek::Workers& needs, int64_t workers) : array_(needs.bytes * workers + ek::kWorkspaceAlign) {
    const auto at = reinterpret_cast<uintptr_t>(array_.data());
    const uintptr_t skip = (ek::kWorkspaceAlign - at % ek::kWorkspaceAlign) % ek::kWorkspaceAlign;
    workspace.data = array_.data() + skip;
    workspace.workers = static_cast<int>(workers);
  }
  ek::Workspace workspace;

 private:
  Array<char> array_;
};

// Some offsets of a window that come after its middle, the farthest rows first.
std::vector<int32_t> offsets(Source& source, int dims, int64_t reach[3]) {
  const int64_t radius = source.any({1, 2, 3, 5});
  const int64_t rz = dims == 3 ? std::min<int64_t>(radius, 2) : 0;
  reach[0] = rz, reach[1] = reach[2] = radius;
  const int64_t share = source.between(1, 6);
  std::vector<int32_t> all;
  for (int64_t z = rz; z >= 0; --z) {
    for (int64_t y = radius; y >= (z ? -radius : 0); --y) {
      for (int64_t x = z || y ? -radius : 1; x <= radius; ++x) {
        if (!source.one_in(share + 1)) continue;
        for (int64_t o : {z, y, x}) all.push_back(static_cast<int32_t>(o));
      }
    }
  }
  return all;
}

void spoil(Source& source, ek::Bilateral& args) {
  switch (source.below(6)) {
    case 0:
      args.out.w += 1;
      break;
    case 1:
      args.out.type = args.out.type == ek::Type::kUint8 ? ek::Type::kFloat32 : ek::Type::kUint8;
      break;
    case 2:
      args.decay = source.any({1.0f, __builtin_nanf(""), -__builtin_inff()});
      break;
    case 3:
      args.reach[source.below(3)] = source.any({-1, 129});
      break;
    case 4:
      args.image.n = 0;
      break;
    default:
      args.image.channels_last = true;
  }
}

void bilateral(Source& source, Check& check) {
  const int dims = static_cast<int>(source.any({3, 2}));
  ek::Bilateral args;
  const int64_t n = source.between(1, 2), c = source.between(1, 3);
  args.image = shape(source, n, c, dims);
  args.image.type = type(source);
  args.out = args.image;
  args.boundary = boundary(source);
  args.decay = source.any({-0.01f, -1e-5f, -0.0f, -10.0f, -1e30f});
  const std::vector<int32_t> table = offsets(source, dims, args.reach);
  args.pairs = static_cast<int64_t>(table.size() / 3);
  Array<int32_t> places(3 * args.pairs);
  std::copy(table.begin(), table.end(), places.data());
  const Array<float> weights = floats(source, args.pairs, 1.0f);
  args.offsets = places.data();
  args.weights = weights.data();
  ek::Tensor guide = args.image;
  if (source.one_in(2)) guide.c = 1;
  guide.type = type(source);
  const Stored image(source, args.image, 100.0f), leader(source, guide, 50.0f);
  args.image.data = image.data();
  if (source.one_in(2)) {
    args.guide = guide;
    args.guide.data = leader.data();
  }
  const bool bad = source.one_in(12);
  if (bad) spoil(source, args);
  const int64_t skip = source.between(0, 3), workers = source.between(1, 4);
  const ek::Tensor out = args.out;
  check.all(
      [&](Run& run) {
        ek::Bilateral call = args;
        call.out.data = output_like(run, out.type, out.elements(), skip);
        if (run.as_device) return as_device(call);
        const Memory memory(ek::needs(call), workers);
        call.workspace = memory.workspace;
        ek::bilateral(call, run.isa, run.parallel);
      },
      true);
  if (bad) check.refuses();
}

void spoil(Source& source, ek::Gaussian& args) {
  switch (source.below(4)) {
    case 0:
      args.out.h += 1;
      break;
    case 1:
      args.out.type = args.out.type == ek::Type::kUint8 ? ek::Type::kFloat32 : ek::Type::kUint8;
      break;
    case 2:
      args.reach[source.below(3)] = source.any({-1, 4097});
      break;
    default:
      args.out.channels_last = true;
  }
}

void gaussian(Source& source, Check& check) {
  const int dims = static_cast<int>(source.any({3, 2}));
  ek::Gaussian args;
  const int64_t n = source.between(1, 2), c = source.between(1, 3);
  args.image = shape(source, n, c, dims);
  args.image.type = type(source);
  args.out = args.image;
  args.boundary = boundary(source);
  for (int axis = 3 - dims; axis < 3; ++axis) args.reach[axis] = source.any({1, 0, 2, 3, 9, 40});
  const Array<float> weights = floats(source, 40, 0.2f);
  for (const float*& along : args.weights) along = weights.data();
  const Stored image(source, args.image, 100.0f);
  args.image.data = image.data();
  const bool bad = source.one_in(12);
  if (bad) spoil(source, args);
  const int64_t skip = source.between(0, 3), workers = source.between(1, 4);
  const ek::Tensor out = args.out;
  check.all(
      [&](Run& run) {
        ek::Gaussian call = args;
        call.out.data = output_like(run, out.type, out.elements(), skip);
        std::vector<Array<float>> spare;
        for (int i = 0; i < ek::spares(call); ++i) {
          spare.emplace_back(args.image.elements(), 1);
          call.spares[i] = args.image;
          call.spares[i].type = ek::Type::kFloat32;
          call.spares[i].data = spare.back().data();
        }
        if (run.as_device) return as_device(call);
        const Memory memory(ek::needs(call), workers);
        call.workspace = memory.workspace;
        ek::gaussian(call, run.isa, run.parallel);
      },
      true);
  if (bad) check.refuses();
}

void spoil(Source& source, ek::Guided& args) {
  switch (source.below(5)) {
    case 0:
      args.out.h += 1;
      break;
    case 1:
      args.out.type = args.out.type == ek::Type::kUint8 ? ek::Type::kFloat32 : ek::Type::kUint8;
      break;
    case 2:
      args.reach[source.below(3)] = source.any({-1, 4097});
      break;
    case 3:
      args.epsilon = source.any({0.0f, -1.0f, __builtin_nanf(""), __builtin_inff()});
      break;
    default:
      args.out.channels_last = true;
  }
}

void guided(Source& source, Check& check) {
  const int dims = static_cast<int>(source.any({3, 2}));
  ek::Guided args;
  const int64_t n = source.between(1, 2), c = source.between(1, 3);
  args.image = shape(source, n, c, dims);
  args.image.type = type(source);
  args.out = args.image;
  args.boundary = boundary(source);
  const int64_t radius = source.any({1, 2, 3, 9});
  for (int axis = 3 - dims; axis < 3; ++axis) args.reach[axis] = radius;
  args.epsilon = source.any({1.0f, 1e-3f, 1e4f, 1e-30f});
  ek::Tensor guide = args.image;
  if (source.one_in(2)) guide.c = 1;
  guide.type = type(source);
  const Stored image(source, args.image, 100.0f), leader(source, guide, 50.0f);
  args.image.data = image.data();
  if (source.one_in(2)) {
    args.guide = guide;
    args.guide.data = leader.data();
  }
  const bool bad = source.one_in(12);
  if (bad) spoil(source, args);
  const int64_t skip = source.between(0, 3), workers = source.between(1, 4);
  const ek::Tensor out = args.out;
  check.all(
      [&](Run& run) {
        ek::Guided call = args;
        call.out.data = output_like(run, out.type, out.elements(), skip);
        Array<float> spare(ek::spare_floats(call), 1);
        call.spare = spare.data();
        if (run.as_device) return as_device(call);
        const Memory memory(ek::needs(call), workers);
        call.workspace = memory.workspace;
        ek::guided_filter(call, run.isa, run.parallel);
      },
      true);
  if (bad) check.refuses();
}

const Register registered[] = {{"bilateral", bilateral}, {"gaussian", gaussian}, {"guided_filter", guided}};

}  // namespace
}  // namespace test
