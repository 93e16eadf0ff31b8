// How iterations are cut into passes, and passes into tasks.
#pragma once

#include "common/parallel.h"
#include "stencil/stencil_plan.h"

namespace ek {

// Bytes of the working memory of one worker, whatever the cut.
int64_t stencil_worker_bytes(const StencilShape& shape, const Tensor& image);

// Bytes of what passes leave to each other: two states of a channel, and the sums of its rows.
int64_t stencil_state_bytes(const StencilShape& shape, const Tensor& image);

// The passes over one channel.
class StencilPasses {
 public:
  StencilPasses(const StencilShape& shape, const Tensor& image, const Tensor& out, int64_t channel,
                const StencilMemory& memory, const Parallel& parallel);

  // How many iterations the next pass is best given, of as many that are left.
  int iterations(int left) const;
  // A pass of so many iterations, from where the one before has come to; without any it leaves nothing.
  const StencilPass& next(int iterations, bool sum, bool finish);
  // Sum `which` of all rows.
  double sum(int which) const;

 private:
  StencilShape shape_;
  StencilPass pass_;
  float *states_[2], *reached_ = nullptr;
  double* sums_;
  int threads_;
};

// The image of a channel, whose planes are rows if it is flat.
Tensor stencil_channel(const Tensor& tensor, int64_t channel);

}  // namespace ek
