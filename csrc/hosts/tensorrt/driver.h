// The device that a host's stream belongs to, by the CUDA driver's library, which is loaded at the first use.
#pragma once

#include <map>
#include <string>

#include "common/cuda.h"
#include "hosts/tensorrt/device.h"

struct CUfunc_st;

namespace ek {
namespace hosts {

// The kernels of the device code in one context.
using Functions = std::map<std::string, CUfunc_st*>;

// Loads the device code into the current context, before an inference has to. Where the thread has no context
// yet, that is left to the first DriverDevice. Throws CudaError.
void load_device_code();

class DriverDevice : public Device {
 public:
  // A stream of the thread's current context, into which the device code is loaded if that has not been done.
  // Throws CudaError.
  explicit DriverDevice(cuda::Stream stream);

  // All throw CudaError.
  void launch(const Launch& launch) override;
  void fill(void* to, uint32_t bits, int64_t count) override;
  void copy(void* to, const void* from, int64_t bytes) override;
  void upload(void* to, const void* from, int64_t bytes) override;

 private:
  cuda::Stream stream_;
  const Functions& functions_;
};

}  // namespace hosts
}  // namespace ek
