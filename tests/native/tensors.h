// Arrays of any type of tensor.
#pragma once

#include <memory>

#include "check.h"
#include "common/tensor.h"

namespace test {

// A planar float32 tensor, 2-D or 3-D, with axes of any length.
inline ek::Tensor shape(Source& source, int64_t n, int64_t c, int dims) {
  ek::Tensor tensor;
  tensor.n = n, tensor.c = c;
  int64_t left = source.budget();
  const auto axis = [&] {
    const int64_t length = source.axis(left);
    left /= length;
    return length;
  };
  tensor.w = axis();
  tensor.h = axis();
  tensor.d = dims == 3 ? axis() : 1;
  return tensor;
}

// Memory for the values of a tensor: floats within +-scale, or integers of all sizes.
class Stored {
 public:
  Stored(Source& source, const ek::Tensor& shape, float scale) : type_(shape.type) {
    const int64_t count = shape.elements();
    switch (type_) {
      case ek::Type::kFloat32:
        floats_ = std::make_unique<Array<float>>(floats(source, count, scale));
        break;
      case ek::Type::kFloat16: {
        const Array<float> values = floats(source, count, scale);
        halves_ = std::make_unique<Array<ek::Half>>(count, source.between(0, 1));
        for (int64_t i = 0; i < count; ++i) (*halves_)[i] = ek::float_to_half(values[i]);
        break;
      }
      case ek::Type::kUint8:
        bytes_ = integers<uint8_t>(source, count);
        break;
      case ek::Type::kInt16:
        words_ = integers<int16_t>(source, count);
        break;
    }
  }

  void* data() const {
    switch (type_) {
      case ek::Type::kFloat32:
        return floats_->data();
      case ek::Type::kFloat16:
        return halves_->data();
      case ek::Type::kUint8:
        return bytes_->data();
      default:
        return words_->data();
    }
  }

 private:
  template <class T>
  static std::unique_ptr<Array<T>> integers(Source& source, int64_t count) {
    auto array = std::make_unique<Array<T>>(count, source.between(0, 3));
    Random random(source.bits());
    for (int64_t i = 0; i < count; ++i) (*array)[i] = static_cast<T>(random.bits());
    return array;
  }

  ek::Type type_;
  std::unique_ptr<Array<float>> floats_;
  std::unique_ptr<Array<ek::Half>> halves_;
  std::unique_ptr<Array<uint8_t>> bytes_;
  std::unique_ptr<Array<int16_t>> words_;
};

// Memory for a result of a type.
inline void* output_like(Run& run, ek::Type type, int64_t count, int64_t skip) {
  switch (type) {
    case ek::Type::kFloat32:
      return run.output<float>(count, skip);
    case ek::Type::kFloat16:
      return run.output<ek::Half>(count, skip);
    case ek::Type::kUint8:
      return run.output<uint8_t>(count, skip);
    default:
      return run.output<int16_t>(count, skip);
  }
}

}  // namespace test
