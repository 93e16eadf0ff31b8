#include <new>

#include "device.h"
#include "nlm/nlm.h"
#include "tensors.h"

namespace test {
namespace {

// Makes an argument wrong in one way that has to be noticed before memory is touched.
void spoil(Source& source, ek::NonLocalMeans& args) {
  switch (source.below(9)) {
    case 0:
      args.dims = source.any({0, 1, 4});
      break;
    case 1:
      args.patch_radius = source.any({0, -1, 5, 1 << 30});
      break;
    case 2:
      args.search_radius = source.any({0, -1, 17, 1 << 30});
      break;
    case 3:
      args.strength = source.any({0.0f, -1.0f, 1e3f, from_bits(0x7fc00000)});
      break;
    case 4:
      args.out.w += 1;
      break;
    case 5:
      args.sigma.h = 0;
      break;
    case 6:
      args.image.type = source.any({ek::Type::kInt32, ek::Type::kInt64});
      break;
    case 7:
      args.floor = source.any({-1.0f, 1e30f, from_bits(0x7fc00000)});
      break;
    default:
      args.out.channels_last = true;
  }
}

// One for all, one for each, or one for each voxel.
void broadcast(Source& source, ek::Tensor& like) {
  if (source.one_in(2)) like.n = 1;
  if (source.one_in(2)) like.c = 1;
}

ek::NonLocalMeans problem(Source& source, bool pearson) {
  ek::NonLocalMeans args;
  args.dims = static_cast<int>(source.any({2, 3}));
  args.patch_radius = static_cast<int>(args.dims == 2 ? source.between(1, 4) : source.any({1, 1, 1, 2}));
  args.search_radius = static_cast<int>(args.dims == 2 ? source.between(1, 3) : 1);
  const int64_t n = source.between(1, 2), c = source.between(1, 2);  // in this order everywhere
  args.image = shape(source, n, c, args.dims);
  // A device's thread looks at all there is: in fewer voxels where that is much.
  const int64_t limit = args.patch_radius > 1 || args.dims == 3 ? 600 : 4000;
  while (args.image.elements() > limit) {
    int64_t& axis = args.image.w > 40 ? args.image.w : args.image.h > 1 ? args.image.h : args.image.d;
    if (axis == 1) break;
    axis = (axis + 1) / 2;
  }
  args.image.type = source.any({ek::Type::kFloat32, ek::Type::kFloat16, ek::Type::kUint8, ek::Type::kInt16});
  args.out = args.image;
  args.strength = source.any({1.0f, 0.5f, 0.01f, 100.0f});
  args.blockwise = pearson || source.one_in(2);
  args.rician = !pearson && source.one_in(3);
  args.floor = pearson ? source.any({1.0f, 1e-6f, 100.0f}) : 0.0f;
  args.boundary = source.any({ek::Boundary::kMirror, ek::Boundary::kZero, ek::Boundary::kEdge,
                              ek::Boundary::kReflect, ek::Boundary::kWrap});
  return args;
}

void exercise(Source& source, Check& check, bool pearson) {
  ek::NonLocalMeans args = problem(source, pearson);
  const Stored image(source, args.image, 100.0f);
  args.image.data = image.data();
  args.sigma = args.image;
  args.sigma.type = ek::Type::kFloat32;
  broadcast(source, args.sigma);
  if (source.one_in(2)) args.sigma.d = args.sigma.h = args.sigma.w = 1;
  Array<float> sigmas(args.sigma.elements(), source.between(0, 3));
  for (int64_t i = 0; i < sigmas.size(); ++i) sigmas[i] = static_cast<float>(source.below(41));
  args.sigma.data = sigmas.data();
  args.mask = args.image;
  args.mask.type = ek::Type::kUint8;
  broadcast(source, args.mask);
  Array<uint8_t> mask(args.mask.elements(), source.between(0, 3));
  for (int64_t i = 0; i < mask.size(); ++i) mask[i] = static_cast<uint8_t>(source.below(3));
  args.mask.data = source.one_in(3) ? mask.data() : nullptr;
  const int64_t elements = args.image.elements();
  const bool bad = source.one_in(12);
  if (bad) spoil(source, args);
  const int workers = static_cast<int>(source.between(1, 3));
  check.all(
      [&](Run& run) {
        ek::NonLocalMeans call = args;
        call.out.data = output_like(run, args.image.type, elements, 1);
        if (run.as_device) return as_device(call);
        const int64_t bytes = ek::nlm_workspace_bytes(call);
        constexpr auto kAlign = std::align_val_t{ek::kWorkspaceAlign};
        const auto free = [](void* memory) { ::operator delete(memory, kAlign); };
        const std::unique_ptr<void, decltype(free)> memory(
            ::operator new(static_cast<size_t>(workers * bytes), kAlign), free);
        call.workspace = {memory.get(), workers};
        ek::non_local_means(call, run.isa, run.parallel);
      },
      true);
  if (bad) check.refuses();
}

void plain(Source& source, Check& check) { exercise(source, check, false); }
void speckle(Source& source, Check& check) { exercise(source, check, true); }

const Register registered[] = {{"non_local_means", plain}, {"obnlm", speckle}};

}  // namespace
}  // namespace test
