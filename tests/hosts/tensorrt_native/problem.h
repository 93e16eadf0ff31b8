// One call of an operator, as Python hands it to the harnesses.
#pragma once

#include <cstdint>
#include <sstream>
#include <string>

#include "hosts/operators.h"

extern "C" {

struct ProblemArray {
  void* data;
  const int64_t* dims;
  int32_t rank;
};

struct Problem {
  const char* name;        // of the operator
  const char* attributes;  // a line for each: name, "int", "float" or "string", value
  int32_t half;            // whether arrays are float16
  int32_t count;           // of inputs
  ProblemArray inputs[2];
  ProblemArray output;
};
}

namespace test {

// Calls take(name, kind, text) for every attribute that is said.
template <class Take>
void each_attribute(const Problem& problem, const Take& take) {
  std::istringstream lines(problem.attributes);
  for (std::string name, kind, text; lines >> name >> kind >> text;) take(name, kind, text);
}

}  // namespace test
