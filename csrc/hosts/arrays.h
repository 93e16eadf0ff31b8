// What the entries of the operator table are written with: arrays of hosts as tensors of kernels, names as
// values, and float16 widened where a kernel computes on float32 alone.
#pragma once

#include <string>

#include "common/boundary.h"
#include "hosts/memory.h"
#include "hosts/operators.h"

namespace ek {
namespace hosts {

// [N, C, D, H, W] or [N, C, H, W], planar.
Tensor planar(const Array& array);
// A grid [N, D, H, W, 3], whose components are innermost.
Tensor innermost(const Array& array);

int dims_of(const Shape& shape);

// Throw Error for a name that there is not.
Boundary boundary_of(const std::string& name);
int order_of_mode(const std::string& name);
// How an image goes on beside a normalised grid; `padding` is PyTorch's and ONNX's word.
Boundary boundary_of_padding(const std::string& padding, int order, bool align_corners);

// Of an attribute that names a boundary.
void check_boundary(const Value& value);

// An array that is read in float32: itself if it is, else a copy.
class Widened {
 public:
  Widened(const Array& array, const Parallel& parallel);
  const Array& array() const { return array_; }

 private:
  Memory memory_;
  Array array_;
};

// An array that is written in float32: itself if it is, else a copy that is rounded into it at the end.
class Narrowed {
 public:
  explicit Narrowed(const Array& array);
  const Array& array() const { return wide_; }
  void finish(const Parallel& parallel) const;

 private:
  Memory memory_;
  Array array_, wide_;
};

}  // namespace hosts
}  // namespace ek
