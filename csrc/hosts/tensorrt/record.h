// The attributes of an operator as bytes, for plans of TensorRT 8. A plan may come from anywhere: every byte
// is checked.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "hosts/operators.h"

namespace ek {
namespace hosts {

std::string write_record(const Operator& op, const std::vector<Value>& values);

// Throws Error unless the bytes are a record of this operator, with values that there are.
std::vector<Value> read_record(const Operator& op, const void* data, size_t size);

}  // namespace hosts
}  // namespace ek
