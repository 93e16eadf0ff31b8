// Operators that iterate over the neighbours of every voxel.
#include <new>

#include "device.h"
#include "diffusion/diffusion.h"
#include "srad/srad.h"
#include "tensors.h"
#include "total_variation/total_variation.h"

namespace test {
namespace {

// Memory of exactly the sizes that are asked for.
class Space {
 public:
  Space(const ek::StencilShape& shape, const ek::Tensor& image, int workers)
      : state_(lines(ek::stencil_state_bytes(shape, image))),
        workers_(lines(workers * ek::stencil_worker_bytes(shape, image))),
        count_(workers) {}
  ek::StencilMemory memory() { return {state_.get(), {workers_.get(), count_}}; }

 private:
  struct alignas(64) Line {
    char bytes[64];
  };
  static std::unique_ptr<Line[]> lines(int64_t bytes) {
    return std::make_unique<Line[]>(static_cast<size_t>((bytes + 63) / 64));
  }
  std::unique_ptr<Line[]> state_, workers_;
  int count_;
};

// Images small enough that several iterations of each are quick.
template <class Args>
void draw_image(Source& source, Args& args) {
  args.dims = static_cast<int>(source.any({3, 2}));
  args.image = shape(source, 1, source.between(1, 2), args.dims);
  args.image.type = source.any(
      {ek::Type::kFloat32, ek::Type::kFloat32, ek::Type::kFloat16, ek::Type::kUint8, ek::Type::kInt16});
  args.out = args.image;
}

template <class Args>
void spoil_image(Source& source, Args& args) {
  switch (source.below(6)) {
    case 0:
      args.image.c = source.any<int64_t>({0, -1, INT64_MAX});
      break;
    case 1:
      args.out.w += 1;
      break;
    case 2:
      args.out.type = args.image.type == ek::Type::kUint8 ? ek::Type::kInt16 : ek::Type::kUint8;
      break;
    case 3:
      args.dims = source.any({0, 1, 4, -3});
      break;
    case 4:
      args.out.channels_last = true;
      break;
    default:
      args.iterations = source.any({0, -1});
  }
}

template <class Args, class Call>
void run_all(Source& source, Check& check, const Args& args, int64_t gaps, bool bad, const Call& run_it) {
  const int64_t count = args.out.elements(), skip = source.between(0, 1);
  const ek::Type type = args.out.type;
  const ek::Tensor image = args.image;
  check.all(
      [&](Run& run) {
        Args call = args;
        if (!bad) call.out.data = output_like(run, type, count, skip);
        float* gap = gaps > 0 ? run.output<float>(gaps) : nullptr;
        if (run.as_device) return run_it(call, gap, nullptr);
        const int workers = run.parallel.threads > 0 ? run.parallel.threads : 3;
        if (!bad) {
          Space space(ek::shape_of(call), image, workers);
          call.memory = space.memory();
          return run_it(call, gap, &run);
        }
        run_it(call, gap, &run);
      },
      true);
  if (bad) check.refuses();
}

void total_variation(Source& source, Check& check) {
  ek::TotalVariation args;
  draw_image(source, args);
  args.method = source.any({ek::TotalVariationMethod::kChambolle, ek::TotalVariationMethod::kPrimalDual});
  args.weight = source.any({10.0, 0.1, 1000.0, 1e-30});
  args.iterations = static_cast<int>(source.between(1, args.image.elements() > 4096 ? 8 : 25));
  args.tolerance = source.any({-1.0, -1.0, 0.05, 0.0});
  const Stored image(source, args.image, 100.0f);
  args.image.data = image.data();
  const int64_t gaps = source.one_in(2) ? args.image.c : 0;
  const bool bad = source.one_in(12);
  if (bad && source.one_in(2)) {
    args.weight = source.any({0.0, -1.0, 1e300, 1e-300});
  } else if (bad) {
    spoil_image(source, args);
  }
  run_all(source, check, args, gaps, bad, [](ek::TotalVariation& call, float* gap, const Run* run) {
    call.gap = gap;
    if (!run) return as_device(call);
    ek::total_variation(call, run->isa, run->parallel);
  });
}

void diffusion(Source& source, Check& check) {
  ek::Diffusion args;
  draw_image(source, args);
  args.form = source.any({ek::DiffusionForm::kGradient, ek::DiffusionForm::kCurvature});
  args.conductance = source.any({1.0, 0.01, 100.0});
  args.time_step = (args.dims == 3 ? 0.0625 : 0.125) * source.any({1.0, 0.5});
  args.iterations = static_cast<int>(source.between(1, 6));
  args.interval = static_cast<int>(source.between(1, 7));
  const Stored image(source, args.image, 100.0f);
  args.image.data = image.data();
  const bool bad = source.one_in(12);
  if (bad && source.one_in(2)) {
    args.time_step = source.any({0.0, -0.1, 0.126, 1e300});
  } else if (bad) {
    spoil_image(source, args);
  }
  run_all(source, check, args, 0, bad, [](ek::Diffusion& call, float*, const Run* run) {
    if (!run) return as_device(call);
    ek::diffuse(call, run->isa, run->parallel);
  });
}

void srad(Source& source, Check& check) {
  ek::Srad args;
  draw_image(source, args);
  args.time_step = source.any({0.5, 1.0});
  args.iterations = static_cast<int>(source.between(1, 20));
  args.decay = source.any({0.1, 0.0});
  const double starts[] = {source.any({0.3, 0.0, 1.0}), 1e-30};
  args.start = starts;
  args.has_region = source.one_in(3);
  const int64_t sizes[] = {args.image.d, args.image.h, args.image.w};
  for (int i = 0; i < 3; ++i) {
    args.region[i][0] = source.below(sizes[i]);
    args.region[i][1] = source.between(args.region[i][0] + 1, sizes[i]);
  }
  const Stored image(source, args.image, 100.0f);
  args.image.data = image.data();
  const bool bad = source.one_in(12);
  if (bad && args.has_region) {
    args.region[2][1] = source.any<int64_t>({-1, args.region[2][0], args.image.w + 1});
  } else if (bad) {
    spoil_image(source, args);
  }
  run_all(source, check, args, 0, bad, [](ek::Srad& call, float*, const Run* run) {
    if (!run) return as_device(call);
    ek::reduce_speckle(call, run->isa, run->parallel);
  });
}

const Register registered[] = {
    {"total_variation", total_variation}, {"anisotropic_diffusion", diffusion}, {"srad", srad}};

}  // namespace
}  // namespace test
