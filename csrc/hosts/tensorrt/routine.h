// An operator of the table with its attributes, as a device runs it: what it launches, and with which
// arguments. No GPU is needed to know that.
#pragma once

#include <vector>

#include "hosts/denoising.h"
#include "hosts/operators.h"
#include "hosts/tensorrt/device.h"

namespace ek {
namespace hosts {

class Routine {
 public:
  // Throws Error for a value that is none of its attribute's. `op` is an entry of operators().
  Routine(const Operator& op, std::vector<Value> values);

  const Operator& op() const { return *op_; }
  const std::vector<Value>& values() const { return values_; }

  // Bytes of device memory beside arrays up to these, of which only types and shapes are looked at. They need
  // not go together: each may be as large as it ever is.
  int64_t workspace_bytes(const Array* inputs, const Array& output) const;

  // Everything the operator does, in the order of the device's stream. Tables that are uploaded belong to the
  // routine: it has to last until the stream has come to its end. Throws Error, and what the device throws.
  void run(const Array* inputs, const Array& output, void* workspace, Device& device);

 private:
  const Window& window_for(int dims);

  const Operator* op_;
  std::vector<Value> values_;
  Window windows_[2];  // of a bilateral filter, made when they are needed: of images, of volumes
};

// Which axis of which input an axis of the output is as long as.
struct AxisOf {
  int input, axis;
};

// One for every axis of the output, by the rule of the table, for inputs of these numbers of axes. Throws
// Error where an operator does not take them.
std::vector<AxisOf> output_axes(const Operator& op, const int* ranks);

}  // namespace hosts
}  // namespace ek
