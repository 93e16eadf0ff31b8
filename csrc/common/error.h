// The one way a kernel refuses its arguments. Hosts catch it at their boundary and answer in their own
// manner.
#pragma once

#include <stdexcept>
#include <string>

namespace ek {

class Error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

inline void require(bool holds, const std::string& message) {
  if (!holds) throw Error(message);
}

}  // namespace ek
