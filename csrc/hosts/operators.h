// The operators of the ONNX domain `edgekit`, version 1, for any host: what each is called, takes and gives,
// and how it is run. edgekit/graph/opset.py says the same to onnx. A host file loops over this table, shows
// the kernels its arrays as they are, and lends them its threads.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/isa.h"
#include "common/parallel.h"
#include "common/tensor.h"

namespace ek {
namespace hosts {

constexpr const char* kDomain = "edgekit";
constexpr int kVersion = 1;
constexpr int kMaxRank = 5;
constexpr int kMaxInputs = 2;

struct Shape {
  int rank = 0;
  int64_t dims[kMaxRank] = {};  // negative where a length is not known yet

  Shape() = default;
  Shape(std::initializer_list<int64_t> lengths);
  // Throws Error where there are more axes than an operator takes.
  Shape(int64_t rank, const int64_t* lengths);

  int64_t elements() const;
  bool is_known() const;  // all of its lengths are
  bool operator==(const Shape& other) const;
};

// An array of a host's, C-contiguous, of float32 or float16.
struct Array {
  void* data = nullptr;
  Type type = Type::kFloat32;
  Shape shape;
};

enum class Kind : uint8_t { kInt, kFloat, kString };

// The value of an attribute; that of its kind counts.
struct Value {
  int64_t i = 0;
  float f = 0.0f;
  std::string s;
};

struct Attribute {
  const char* name;
  Kind kind;
  bool required;
  Value value;                    // where a node says none; of no meaning if it has to
  void (*check)(const Value& v);  // throws Error unless the value is one that there is
};

// One call. `output` may not overlap an input.
struct Call {
  const Array* inputs = nullptr;
  Array output;
  const Value* values = nullptr;  // one for each attribute, in order
  Isa isa = Isa::kScalar;
  Parallel parallel;
};

struct Operator {
  const char* name;
  std::vector<const char*> inputs;
  const char* output;
  std::vector<Attribute> attributes;
  // The output's shape, of those of the inputs, where unknown lengths fit anything. Throws Error.
  Shape (*shape)(const Shape* inputs);
  void (*run)(const Call& call);  // null where the processor's kernels are left out: EK_ON_PROCESSOR
};

// Around the kernels of the table. A host that runs them elsewhere says EK_PROCESSOR=0, and its linker leaves
// them out.
#if !defined(EK_PROCESSOR)
#define EK_PROCESSOR 1
#endif
#define EK_ON_PROCESSOR(run) (EK_PROCESSOR ? (run) : nullptr)

// All of them, in the order of edgekit/graph/opset.py.
const std::vector<Operator>& operators();

// The one called so, or null.
const Operator* find_operator(const std::string& name);

// Runs `task`, and says in an Error that it throws whose it is.
template <class Task>
void named(const Operator& op, const Task& task) {
  try {
    task();
  } catch (const Error& error) {
    throw Error(std::string(op.name) + ": " + error.what());
  }
}

// The output's shape. Throws Error, with the operator's name.
Shape shape_of(const Operator& op, const Shape* inputs);

// Throws Error, with the operator's name, for the first value that is none of its attribute's.
void check_values(const Operator& op, const Value* values);

// Throws Error, with the operator's name, unless types and shapes are as it wants them.
void check_call(const Operator& op, const Call& call);

// Checks types and shapes and runs. Throws Error, with the operator's name.
void run(const Operator& op, const Call& call);

// The instruction set of this process: EDGEKIT_ISA if set, else the best one, decided at the first call.
// Throws Error if EDGEKIT_ISA names none that is there.
Isa chosen_isa();

}  // namespace hosts
}  // namespace ek

// Where the latest call of this library had its arrays: its inputs, and then its output. For tests of hosts,
// which prove with it that nothing was copied.
extern "C" __attribute__((visibility("default"))) void edgekit_last_call(const void* pointers[3]);
