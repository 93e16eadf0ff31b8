#include <cuda_runtime.h>

#include <vector>

#include "adjoint/adjoint.h"
#include "adjoint/adjoint_cuda.h"
#include "bilateral/bilateral.h"
#include "bilateral/bilateral_cuda.h"
#include "bind/gpu.h"
#include "common/error.h"
#include "diffusion/diffusion.h"
#include "diffusion/diffusion_cuda.h"
#include "filter/filter.h"
#include "filter/filter_cuda.h"
#include "gaussian/gaussian.h"
#include "gaussian/gaussian_cuda.h"
#include "gradient/gradient.h"
#include "gradient/gradient_cuda.h"
#include "guided/guided.h"
#include "guided/guided_cuda.h"
#include "inverse/inverse.h"
#include "inverse/inverse_cuda.h"
#include "jacobian/jacobian.h"
#include "jacobian/jacobian_cuda.h"
#include "labels/labels.h"
#include "labels/labels_cuda.h"
#include "median/median.h"
#include "median/median_cuda.h"
#include "nlm/nlm.h"
#include "nlm/nlm_cuda.h"
#include "points/points_cuda.h"
#include "points/points_plan.h"
#include "sample/sample.h"
#include "sample/sample_cuda.h"
#include "srad/srad.h"
#include "srad/srad_cuda.h"
#include "total_variation/total_variation.h"
#include "total_variation/total_variation_cuda.h"

namespace ek {
namespace gpu {
namespace {

void check(cudaError_t error) {
  if (error != cudaSuccess) throw cuda::CudaError(cudaGetErrorString(error));
}

constexpr cuda::Stream kStream = nullptr;  // the default one, which waits for all others that block

// Memory of one call on the current device, in place of that of the host.
class Staging {
 public:
  Staging() {
    const std::string why = missing();
    require(why.empty(), why);
  }
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging() {
    for (void* memory : memory_) cudaFree(memory);
  }

  void* space(int64_t bytes) {
    void* memory = nullptr;
    check(cudaMalloc(&memory, static_cast<size_t>(bytes)));
    memory_.push_back(memory);
    return memory;
  }

  template <class T>
  void input(T*& data, int64_t bytes) {
    if (!data || bytes == 0 || on_device(data)) return;
    void* memory = space(bytes);
    check(cudaMemcpyAsync(memory, data, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, kStream));
    data = static_cast<T*>(memory);
  }
  void input(Tensor& tensor) { input(tensor.data, tensor.bytes()); }

  template <class T>
  void output(T*& data, int64_t bytes) {
    if (!data || on_device(data)) return;
    void* memory = space(bytes);
    results_.push_back({data, memory, static_cast<size_t>(bytes)});
    data = static_cast<T*>(memory);
  }
  void output(Tensor& tensor) { output(tensor.data, tensor.bytes()); }

  // Waits for the results, and copies them back.
  void finish() {
    for (const Result& result : results_) {
      check(cudaMemcpyAsync(result.host, result.device, result.bytes, cudaMemcpyDeviceToHost, kStream));
    }
    check(cudaStreamSynchronize(kStream));
  }

 private:
  struct Result {
    void *host, *device;
    size_t bytes;
  };

  static bool on_device(const void* data) {
    cudaPointerAttributes attributes;
    check(cudaPointerGetAttributes(&attributes, data));
    return attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  }

  std::vector<void*> memory_;
  std::vector<Result> results_;
};

}  // namespace

std::string missing() {
  int devices = 0;
  const cudaError_t error = cudaGetDeviceCount(&devices);
  if (error != cudaSuccess) {
    cudaGetLastError();  // which would be met again by the next call
    return std::string("no GPU: ") + cudaGetErrorString(error);
  }
  return devices > 0 ? "" : "no GPU";
}

// Arguments are checked before they are copied: copies never overlap.

void sample(const Sample& args) {
  plan_sample(args);
  Staging staging;
  Sample call = args;
  staging.input(call.image);
  staging.input(call.coordinates);
  staging.output(call.out);
  cuda::sample(call, kStream);
  staging.finish();
}

void jacobian_determinant(const JacobianDeterminant& args) {
  ek::check(args);
  Staging staging;
  JacobianDeterminant call = args;
  staging.input(call.flow);
  staging.output(call.out);
  staging.output(call.folding, args.flow.n * static_cast<int64_t>(sizeof(int64_t)));
  cuda::jacobian_determinant(call, kStream);
  staging.finish();
}

void median(const Median& args) {
  ek::check(args);
  Staging staging;
  Median call = args;
  staging.input(call.image);
  staging.output(call.out);
  cuda::median(call, kStream);
  staging.finish();
}

void bilateral(const Bilateral& args) {
  ek::check(args);
  Staging staging;
  Bilateral call = args;
  staging.input(call.image);
  staging.input(call.guide);
  staging.input(call.offsets, args.pairs * 3 * static_cast<int64_t>(sizeof(int32_t)));
  staging.input(call.weights, args.pairs * static_cast<int64_t>(sizeof(float)));
  staging.output(call.out);
  cuda::bilateral(call, kStream);
  staging.finish();
}

void filter_axis(const AxisFilter& args) {
  ek::check(args);
  Staging staging;
  AxisFilter call = args;
  const int64_t lines = args.outer * args.inner, column = args.columns * 4;
  staging.input(call.in, lines * args.in_size * size_of(args.in_type));
  staging.input(call.base, column);
  staging.input(call.scale, column);
  staging.input(call.index, args.taps * column);
  staging.input(call.weight, args.taps * column);
  staging.output(call.out, lines * args.out_size * size_of(args.out_type));
  cuda::filter_axis(call, kStream);
  staging.finish();
}

// A stage for all images at once: memory between stages is that of the device.
void filter_axes(const FilterChain& args) {
  plan_chain(args);
  Staging staging;
  FilterChain call = args;
  int64_t size[kMaxStages] = {args.size[0], args.size[1], args.size[2]};
  const auto elements = [&] { return args.outer * args.inner * size[0] * size[1] * size[2]; };
  staging.input(call.in, elements() * size_of(args.in_type));
  for (int s = 0; s < args.stages; ++s) size[args.stage[s].axis] = args.stage[s].size;
  staging.output(call.out, elements() * size_of(args.out_type));
  for (int axis = 0; axis < kMaxStages; ++axis) size[axis] = args.size[axis];
  const void* from = call.in;
  Type type = args.in_type;
  for (int s = 0; s < args.stages; ++s) {
    FilterStage& stage = call.stage[s];
    staging.input(stage.base, stage.columns * 4);
    staging.input(stage.scale, stage.columns * 4);
    staging.input(stage.index, stage.taps * stage.columns * 4);
    staging.input(stage.weight, stage.taps * stage.columns * 4);
    AxisFilter filter = stage_filter(args, stage, size);
    const bool last = s + 1 == args.stages;
    filter.in = from;
    filter.in_type = type;
    filter.out_type = last ? args.out_type : Type::kFloat32;
    filter.out = last ? call.out : staging.space(elements() * 4);
    cuda::filter_axis(filter, kStream);
    from = filter.out;
    type = filter.out_type;
  }
  staging.finish();
}

void gaussian(const Gaussian& args) {
  needs(args);  // refuses what is wrong; spares are made here
  Staging staging;
  Gaussian call = args;
  staging.input(call.image);
  for (int axis = 0; axis < 3; ++axis) {
    staging.input(call.weights[axis], args.reach[axis] * static_cast<int64_t>(sizeof(float)));
  }
  staging.output(call.out);
  for (int i = 0; i < spares(args); ++i) {
    call.spares[i] = args.image;
    call.spares[i].type = Type::kFloat32;
    call.spares[i].data = staging.space(call.spares[i].bytes());
  }
  cuda::gaussian(call, kStream);
  staging.finish();
}

void guided_filter(const Guided& args) {
  const int64_t spare = spare_floats(args) * static_cast<int64_t>(sizeof(float));
  Staging staging;
  Guided call = args;
  staging.input(call.image);
  staging.input(call.guide);
  staging.output(call.out);
  call.spare = static_cast<float*>(staging.space(spare));
  cuda::guided_filter(call, kStream);
  staging.finish();
}

void integrate_velocity(const Tensor& velocity, const Tensor& out, int steps, Boundary boundary) {
  require(out.same_shape(velocity) && !overlap(out, velocity), "out and velocity overlap or differ in shape");
  Staging staging;
  Tensor from = velocity, to = out, spare = out;
  staging.input(from);
  staging.output(to);
  spare.data = staging.space(out.bytes());
  cuda::integrate_velocity(from, to, spare, steps, boundary, kStream);
  staging.finish();
}

void move_points(const MovePoints& args) {
  plan_points(args);
  Staging staging;
  MovePoints call = args;
  staging.input(call.points);
  staging.input(call.flow);
  staging.output(call.out);
  cuda::move_points(call, kStream);
  staging.finish();
}

void non_local_means(const NonLocalMeans& args) {
  plan_nlm(args);
  Staging staging;
  NonLocalMeans call = args;
  staging.input(call.image);
  staging.input(call.sigma);
  staging.input(call.mask);
  staging.output(call.out);
  cuda::non_local_means(call, kStream);
  staging.finish();
}

void invert(const Inverse& args) {
  plan_inverse(args);
  Staging staging;
  Inverse call = args;
  staging.input(call.flow);
  staging.output(call.out);
  staging.output(call.residual, args.flow.n * static_cast<int64_t>(sizeof(float)));
  cuda::invert(call, kStream);
  staging.finish();
}

void warp_adjoint(const Adjoint& args) {
  Staging staging;
  const int64_t bytes = cuda::adjoint_workspace_bytes(args);
  Adjoint call = args;
  staging.input(call.values);
  staging.input(call.flow);
  staging.output(call.out);
  staging.output(call.counts);
  cuda::warp_adjoint(call, staging.space(bytes), kStream);
  staging.finish();
}

void warp_gradient(const Gradient& args) {
  plan_gradient(args);
  Staging staging;
  Gradient call = args;
  staging.input(call.cotangent);
  staging.input(call.image);
  staging.input(call.flow);
  staging.output(call.out);
  cuda::warp_gradient(call, kStream);
  staging.finish();
}

void warp_labels(const Labels& args) {
  plan_labels(args);
  Staging staging;
  Labels call = args;
  staging.input(call.labels);
  staging.input(call.flow);
  staging.output(call.out);
  cuda::warp_labels(call, kStream);
  staging.finish();
}

void total_variation(const TotalVariation& args) {
  ek::check(args);
  Staging staging;
  TotalVariation call = args;
  staging.input(call.image);
  staging.output(call.out);
  cuda::total_variation(call, staging.space(cuda::total_variation_workspace_bytes(call)), kStream);
  staging.finish();
}

void anisotropic_diffusion(const Diffusion& args) {
  ek::check(args);
  Staging staging;
  Diffusion call = args;
  staging.input(call.image);
  staging.output(call.out);
  cuda::anisotropic_diffusion(call, staging.space(cuda::diffusion_workspace_bytes(call)), kStream);
  staging.finish();
}

void reduce_speckle(const Srad& args) {
  ek::check(args);
  Staging staging;
  Srad call = args;
  staging.input(call.image);
  staging.output(call.out);
  cuda::reduce_speckle(call, staging.space(cuda::srad_workspace_bytes(call)), kStream);
  staging.finish();
}

}  // namespace gpu
}  // namespace ek
