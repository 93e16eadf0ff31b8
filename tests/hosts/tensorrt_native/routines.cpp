// Runs routines with a device that is the processor: what they launch, with which arguments and workspace.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "common/grid.h"
#include "entry_table.h"
#include "hosts/tensorrt/record.h"
#include "hosts/tensorrt/routine.h"
#include "problem.h"

namespace {

using namespace ek;
using namespace ek::hosts;

class OnProcessor : public Device {
 public:
  void launch(const Launch& launch) override {
    const test::EntryRun* entry = test::find_entry(launch.entry);
    if (!entry || entry->bytes != launch.bytes) throw std::logic_error("no such kernel, or another argument");
    const cuda::Grid grid = cuda::grid_of(launch.rows, launch.items);
    entry->run(launch.argument, launch.rows, launch.items, grid.x, grid.y);
    names += std::string(launch.entry) + " ";
  }
  void fill(void* to, uint32_t bits, int64_t count) override {
    for (int64_t i = 0; i < count; ++i) std::memcpy(static_cast<char*>(to) + 4 * i, &bits, 4);
    names += "fill ";
  }
  void copy(void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, static_cast<size_t>(bytes));
    names += "copy ";
  }
  void upload(void* to, const void* from, int64_t bytes) override {
    std::memcpy(to, from, static_cast<size_t>(bytes));
    names += "upload ";
  }

  std::string names;
};

const Operator& operator_of(const char* name) {
  const Operator* op = find_operator(name);
  if (!op) throw Error(std::string("no operator ") + name);
  return *op;
}

Array array_of(const ProblemArray& from, bool half) {
  return {from.data, half ? Type::kFloat16 : Type::kFloat32, Shape(from.rank, from.dims)};
}

std::vector<Value> values_of(const Operator& op, const Problem& problem) {
  std::vector<Value> values;
  for (const Attribute& attribute : op.attributes) values.push_back(attribute.value);
  test::each_attribute(problem, [&](const std::string& name, const std::string&, const std::string& text) {
    for (size_t i = 0; i < values.size(); ++i) {
      if (name != op.attributes[i].name) continue;
      values[i] = {std::strtoll(text.c_str(), nullptr, 10), std::strtof(text.c_str(), nullptr), text};
      if (op.attributes[i].kind != Kind::kString) values[i].s.clear();
    }
  });
  return values;
}

// What it asked of the device, or why it refuses.
std::string run(const Problem& problem, bool& refused) {
  try {
    const Operator& op = operator_of(problem.name);
    Routine routine(op, values_of(op, problem));
    Array inputs[kMaxInputs];
    for (int i = 0; i < problem.count; ++i) inputs[i] = array_of(problem.inputs[i], problem.half);
    const Array output = array_of(problem.output, problem.half);
    const auto bytes = static_cast<size_t>(routine.workspace_bytes(inputs, output));
    // Exactly so much, and not numbers: what is read before it is written shows.
    const std::align_val_t align{kWorkspaceAlign};
    void* workspace = bytes ? ::operator new(bytes, align) : nullptr;
    if (bytes) std::memset(workspace, 0xff, bytes);
    OnProcessor device;
    routine.run(inputs, output, workspace, device);
    ::operator delete(workspace, align);
    return device.names + std::to_string(bytes);
  } catch (const std::exception& error) {
    refused = true;
    return error.what();
  }
}

}  // namespace

extern "C" {

// Whether it ran; `said` is then what it asked of the device and its bytes of workspace, else why not.
int run_problem(const Problem* problem, char* said, int size) {
  bool refused = false;
  std::snprintf(said, static_cast<size_t>(size), "%s", run(*problem, refused).c_str());
  return !refused;
}

// "input.axis" for every axis of the output, or why not.
int output_axes_of(const char* name, const int* ranks, char* said, int size) {
  std::string text;
  try {
    for (const AxisOf& axis : output_axes(operator_of(name), ranks)) {
      text += std::to_string(axis.input) + "." + std::to_string(axis.axis) + " ";
    }
  } catch (const std::exception& error) {
    std::snprintf(said, static_cast<size_t>(size), "%s", error.what());
    return 0;
  }
  std::snprintf(said, static_cast<size_t>(size), "%s", text.c_str());
  return 1;
}

// The record of a problem's attributes; its size, or -1.
int write_record_of(const Problem* problem, char* bytes, int size) {
  const Operator& op = operator_of(problem->name);
  const std::string record = write_record(op, values_of(op, *problem));
  if (static_cast<int>(record.size()) > size) return -1;
  record.copy(bytes, record.size());
  return static_cast<int>(record.size());
}

// Whether bytes are a record of an operator, of the very same bytes when it is written again; else why not.
int read_record_of(const char* name, const char* bytes, int count, char* said, int size) {
  try {
    // In memory of its own: a sanitizer sees every access beside it.
    const std::unique_ptr<char[]> copy(new char[static_cast<size_t>(count)]);
    std::memcpy(copy.get(), bytes, static_cast<size_t>(count));
    const Operator& op = operator_of(name);
    const std::string again = write_record(op, read_record(op, copy.get(), static_cast<size_t>(count)));
    return again == std::string(bytes, static_cast<size_t>(count));
  } catch (const Error& error) {
    std::snprintf(said, static_cast<size_t>(size), "%s", error.what());
    return 0;
  }
}
}
