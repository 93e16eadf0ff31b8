#include "stencil/stencil.h"

#include <algorithm>

namespace ek {
namespace {

// What is in the cache of a core while a wave passes. A plane that is too large for it still works.
constexpr int64_t kCacheBytes = int64_t{1} << 21;
// Iterations of a pass: more of them save memory traffic, and repeat more of what surrounds a task.
constexpr int kMostOfFlat = 16, kMostOfVolume = 8;
constexpr int64_t kFewestRows = 16;

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t pitch_of(const Tensor& image) { return ceil_div(image.w, kRowPad) * kRowPad + 2 * kRowPad; }

int halo_of(const StencilShape& shape, int stages) { return stages + std::max(shape.extra, 1); }

// Elements of the working memory per row of a plane.
int64_t depth_of(const StencilShape& shape, int stages) {
  const int64_t planes = (stages + 1) * int64_t{shape.ring * shape.fields + shape.spare};
  return planes + (shape.image ? stages + 2 : 0);
}

int64_t bytes_of(const StencilShape& shape, int stages, int64_t height, int64_t pitch) {
  return (depth_of(shape, stages) * height + shape.rows) * pitch * static_cast<int64_t>(sizeof(float));
}

// Rows that a task owns: those whose working memory fits the cache.
int64_t rows_of(const StencilShape& shape, int stages, const Tensor& image) {
  const int64_t row = bytes_of(shape, stages, 1, pitch_of(image));
  const int64_t fit = kCacheBytes / row - 2 * halo_of(shape, stages);
  const int64_t rows = std::min(image.h, std::max(kFewestRows, fit));
  return ceil_div(image.h, ceil_div(image.h, rows));
}

int64_t height_of(const StencilShape& shape, int stages, const Tensor& image) {
  return std::min(image.h, rows_of(shape, stages, image) + 2 * halo_of(shape, stages));
}

int most_iterations(const StencilShape& shape, const Tensor& image) {
  int most = std::max(1, (image.h > 1 ? kMostOfVolume : kMostOfFlat) / shape.stages);
  // Where even the fewest rows do not fit, deep waves gain nothing.
  while (most > 1 && bytes_of(shape, most * shape.stages, height_of(shape, most * shape.stages, image),
                              pitch_of(image)) > 2 * kCacheBytes) {
    --most;
  }
  return most;
}

}  // namespace

Tensor stencil_channel(const Tensor& tensor, int64_t channel) {
  Tensor view = tensor;
  view.data = static_cast<char*>(tensor.data) + channel * tensor.voxels() * size_of(tensor.type);
  view.n = view.c = 1;
  if (view.d == 1) std::swap(view.d, view.h);
  return view;
}

int64_t stencil_worker_bytes(const StencilShape& shape, const Tensor& image) {
  const Tensor view = stencil_channel(image, 0);
  int64_t bytes = 0;
  for (int count = 0; count <= most_iterations(shape, view); ++count) {
    const int stages = count * shape.stages;
    bytes = std::max(bytes, bytes_of(shape, stages, height_of(shape, stages, view), pitch_of(view)));
  }
  return aligned(bytes);
}

int64_t stencil_state_bytes(const StencilShape& shape, const Tensor& image) {
  const int64_t state = aligned(shape.saved * image.voxels() * static_cast<int64_t>(sizeof(float)));
  return 2 * state + aligned(2 * image.d * image.h * static_cast<int64_t>(sizeof(double)));
}

StencilPasses::StencilPasses(const StencilShape& shape, const Tensor& image, const Tensor& out,
                             int64_t channel, const StencilMemory& memory, const Parallel& parallel)
    : shape_(shape), threads_(parallel.threads) {
  pass_.image = stencil_channel(image, channel);
  pass_.out = stencil_channel(out, channel);
  pass_.workers.workspace = memory.workspace;
  pass_.workers.bytes = stencil_worker_bytes(shape, image);
  const int64_t state = aligned(shape.saved * image.voxels() * static_cast<int64_t>(sizeof(float)));
  char* base = static_cast<char*>(memory.state);
  states_[0] = reinterpret_cast<float*>(base);
  states_[1] = reinterpret_cast<float*>(base + state);
  sums_ = reinterpret_cast<double*>(base + 2 * state);
}

int StencilPasses::iterations(int left) const {
  const int most = most_iterations(shape_, pass_.image);
  return left <= most ? left : static_cast<int>(ceil_div(left, ceil_div(left, most)));
}

const StencilPass& StencilPasses::next(int iterations, bool sum, bool finish) {
  pass_.from = reached_;
  pass_.to = finish || iterations == 0 ? nullptr : states_[reached_ == states_[0]];
  if (pass_.to) reached_ = pass_.to;
  pass_.finish = finish;
  pass_.sums = sum ? sums_ : nullptr;
  pass_.stages = iterations * shape_.stages;
  pass_.halo = pass_.stages + std::max(shape_.extra, sum ? 1 : 0);
  pass_.rows = rows_of(shape_, pass_.stages, pass_.image);
  pass_.strips = ceil_div(pass_.image.h, pass_.rows);
  pass_.height = height_of(shape_, pass_.stages, pass_.image);
  pass_.pitch = pitch_of(pass_.image);
  // Slabs are long: what surrounds them is computed twice. A few per thread, that none waits for long.
  const int64_t wanted = threads_ == 1 ? 1 : ceil_div(2 * std::max(threads_, 4), pass_.strips);
  pass_.planes = std::max<int64_t>(ceil_div(pass_.image.d, wanted), std::min<int64_t>(pass_.image.d, 8));
  pass_.slabs = ceil_div(pass_.image.d, pass_.planes);
  pass_.workers.tasks = pass_.slabs * pass_.strips;
  pass_.workers.next = 0;
  return pass_;
}

double StencilPasses::sum(int which) const {
  double total = 0.0;
  for (int64_t row = 0; row < pass_.image.d * pass_.image.h; ++row) total += sums_[2 * row + which];
  return total;
}

}  // namespace ek
