#include "filter/filter.h"
#include "tensors.h"

namespace test {
namespace {

// Random tables for one axis, and the memory they are in.
class Tables {
 public:
  Tables(Source& source, int64_t old_size, int64_t size, int64_t taps)
      : columns_((size + ek::kColumns - 1) / ek::kColumns * ek::kColumns),
        base_(columns_),
        index_(taps * columns_),
        scale_(columns_),
        weight_(taps * columns_) {
    Random random(source.bits());
    for (int64_t i = 0; i < base_.size(); ++i) base_[i] = static_cast<int32_t>(random.below(old_size));
    for (int64_t i = 0; i < index_.size(); ++i) index_[i] = static_cast<int32_t>(random.below(old_size));
    for (int64_t i = 0; i < scale_.size(); ++i) scale_[i] = static_cast<float>(random.below(3)) / 2.0f;
    for (int64_t i = 0; i < weight_.size(); ++i) {
      weight_[i] = static_cast<float>(random.below(9)) / 8.0f - 0.5f;
    }
    if (source.one_in(40)) base_[0] = source.any({-1, static_cast<int32_t>(old_size)});
  }

  ek::FilterStage stage(int axis, int64_t size) const {
    ek::FilterStage stage;
    stage.axis = axis;
    stage.size = size;
    stage.columns = columns_;
    stage.taps = index_.size() / columns_;
    stage.base = base_.data();
    stage.scale = scale_.data();
    stage.index = index_.data();
    stage.weight = weight_.data();
    return stage;
  }

 private:
  int64_t columns_;
  Array<int32_t> base_, index_;
  Array<float> scale_, weight_;
};

// Makes an argument wrong in one way that has to be noticed before memory is touched.
void spoil(Source& source, ek::FilterChain& args) {
  const int64_t wrong = source.any<int64_t>({0, -1, int64_t{1} << 40, INT64_MIN, INT64_MAX});
  switch (source.below(6)) {
    case 0:
      args.stages = source.any({0, -1, 4});
      break;
    case 1:
      args.outer = wrong;
      break;
    case 2:
      args.size[source.below(3)] = wrong;
      break;
    case 3:
      args.stage[0].axis = source.any({-1, 3, 1 << 30});
      break;
    case 4:
      args.stage[0].columns = source.any<int64_t>({0, 8});
      break;
    default:
      args.stage[0].size = wrong;
  }
}

void exercise(Source& source, Check& check) {
  const ek::Type kinds[] = {ek::Type::kFloat32, ek::Type::kFloat16, ek::Type::kUint8, ek::Type::kInt16};
  ek::FilterChain args;
  args.in_type = kinds[source.below(4)];
  args.out_type = source.one_in(2) ? ek::Type::kFloat32 : args.in_type;
  args.outer = source.between(1, 3);
  args.inner = source.one_in(3) ? source.between(2, 5) : 1;
  int64_t left = source.budget(), size[3];
  for (int64_t& axis : args.size) left /= axis = source.axis(left);
  std::copy_n(args.size, 3, size);
  const bool first = source.one_in(2);  // whether axis 0 is filtered: then before the others
  std::vector<int> axes = source.one_in(2) ? std::vector<int>{1, 2} : std::vector<int>{2, 1};
  if (first) axes.insert(axes.begin(), 0);
  axes.resize(static_cast<size_t>(source.between(1, static_cast<int64_t>(axes.size()))));
  std::vector<Tables> tables;
  for (int axis : axes) {
    const int64_t old_size = size[axis];
    size[axis] = std::min(source.axis(64), 4 * old_size);
    tables.emplace_back(source, old_size, size[axis], source.between(1, 4));
  }
  for (size_t s = 0; s < axes.size(); ++s) {
    args.stage[args.stages++] = tables[s].stage(axes[s], size[axes[s]]);
  }
  ek::Tensor in;
  in.n = args.outer, in.c = args.size[0], in.d = args.size[1], in.h = args.size[2], in.w = args.inner;
  in.type = args.in_type;
  const Stored image(source, in, 100.0f);
  args.in = image.data();
  const int64_t elements = args.outer * size[0] * size[1] * size[2] * args.inner;
  const bool bad = source.one_in(16);
  if (bad) spoil(source, args);
  check.all([&](Run& run) {
    ek::FilterChain call = args;
    call.out = output_like(run, args.out_type, elements, 1);
    const int workers = run.parallel.threads > 0 ? run.parallel.threads : 3;
    Array<char> memory(workers * ek::plan_chain(call).workers.bytes + ek::kWorkspaceAlign);
    const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
    call.workspace = {memory.data() + (ek::kWorkspaceAlign - address % ek::kWorkspaceAlign), workers};
    ek::filter_axes(call, run.isa, run.parallel);
  });
  if (bad) check.refuses();
}

const Register registered("filter_axes", exercise);

}  // namespace
}  // namespace test
