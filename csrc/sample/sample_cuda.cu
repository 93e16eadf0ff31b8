#include <cmath>

#include "common/error.h"
#include "common/launch_cuda.h"
#include "common/simd_device-inl.h"
#include "sample/sample_cuda.h"
// The vocabulary above decides what the body below is compiled for.
#include "sample/sample.h"
#include "sample/sample_voxel-inl.h"

namespace ek {
namespace cuda {

void sample(const Sample& args, Stream stream) {
  require(args.image.type != Type::kInt32 && args.image.type != Type::kInt64,
          "labels cannot be interpolated");
  device::with_sample_voxel(plan_sample(args), Launch{stream});
}

void integrate_velocity(const Tensor& velocity, const Tensor& out, const Tensor& spare, int steps,
                        Boundary boundary, Stream stream) {
  require(out.same_shape(velocity) && spare.same_shape(velocity), "velocity, out and spare differ in shape");
  require(steps >= 0, "steps must not be negative");
  require(velocity.type == Type::kFloat32 && out.type == Type::kFloat32 && spare.type == Type::kFloat32,
          "velocity, out and spare must be float32");
  require(!velocity.channels_last && !out.channels_last && !spare.channels_last,
          "velocity, out and spare must be planar");
  if (steps == 0) {
    require(!overlap(out, velocity), "out overlaps an input");
    check(cudaMemcpyAsync(out.data, velocity.data, out.bytes(), cudaMemcpyDeviceToDevice, stream));
  }
  Sample step;
  step.dims = static_cast<int>(velocity.c);
  step.boundary = boundary;
  step.finish = Finish::kAddFlow;
  step.scale = std::ldexp(1.0f, -steps);  // the first step halves so often while it reads
  step.image = velocity;
  for (int left = steps; left > 0; --left, step.scale = 1.0f, step.image = step.out) {
    step.out = left % 2 ? out : spare;
    step.coordinates = step.image;
    sample(step, stream);
  }
}

}  // namespace cuda
}  // namespace ek
