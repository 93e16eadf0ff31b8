// Runs one problem in every way a kernel offers and compares the results bit by bit.
//
// An operator is tested by one file here, which draws a problem from a Source and hands its call to
// Check::all(), and ends in a line that registers it.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/error.h"
#include "common/half.h"
#include "common/isa.h"
#include "common/parallel.h"
#include "source.h"

namespace test {

// Tasks one by one, the last first: for a host that keeps no order.
inline void run_backwards(void*, int64_t count, ek::RangeFn fn, const void* context) {
  for (int64_t task = count; task-- > 0;) fn(context, task, task + 1);
}

// One way to run, and the results it gave.
class Run {
 public:
  Run(std::string name, ek::Isa isa, ek::Parallel parallel, uint8_t fill, bool as_device = false)
      : isa(isa), parallel(parallel), as_device(as_device), name_(std::move(name)), fill_(fill) {}

  const ek::Isa isa;
  const ek::Parallel parallel;
  const bool as_device;  // in the way of a device's threads, see device.h

  // Memory for a result. It is filled with something else in every run: what is not written differs.
  template <class T>
  T* output(int64_t count, int64_t skip = 0) {
    auto array = std::make_shared<Array<T>>(count, skip);
    std::memset(static_cast<void*>(array->data()), fill_, sizeof(T) * static_cast<size_t>(count));
    results_.push_back([array] { return canonical(*array); });
    return array->data();
  }

  // A result that is a number.
  template <class T>
  void result(T value) {
    *output<T>(1) = value;
  }

  // Every result as bytes. All NaNs are one: their sign and payload depend on the machine.
  std::vector<std::vector<uint8_t>> results() const {
    std::vector<std::vector<uint8_t>> all;
    for (const auto& result : results_) all.push_back(result());
    return all;
  }

  const std::string& name() const { return name_; }

 private:
  template <class T>
  static std::vector<uint8_t> canonical(const Array<T>& array) {
    std::vector<uint8_t> bytes(sizeof(T) * static_cast<size_t>(array.size()));
    for (int64_t i = 0; i < array.size(); ++i) {
      T value = array[i];
      if constexpr (std::is_floating_point<T>::value) {
        if (value != value)
          value =
              std::is_same<T, float>::value ? static_cast<T>(from_bits(0x7fc00000)) : T(__builtin_nan(""));
      }
      if constexpr (std::is_same<T, ek::Half>::value) {
        if ((value.bits & 0x7fff) > 0x7c00) value.bits = 0x7e00;
      }
      std::memcpy(bytes.data() + sizeof(T) * static_cast<size_t>(i), &value, sizeof(T));
    }
    return bytes;
  }

  std::string name_;
  uint8_t fill_;
  std::vector<std::function<std::vector<uint8_t>()>> results_;
};

class Check {
 public:
  // Without threads every instruction set runs once, which is quicker.
  explicit Check(std::string problem, bool threads = true)
      : problem_(std::move(problem)), threads_(threads) {}

  // Calls body(Run&) once for each way to run. All have to refuse, or to give the same results.
  void all(const std::function<void(Run&)>& body, bool as_device = false) {
    uint8_t fill = 0x21;
    Outcome first;
    for (ek::Isa isa : ek::available_isas()) {
      std::vector<std::pair<const char*, ek::Parallel>> ways = {{"1 thread", ek::pool(1)}};
      if (threads_) {
        ways.insert(ways.end(), {{"2 threads", ek::pool(2)},
                                 {"5 threads", ek::pool(5)},
                                 {"backwards", {run_backwards, nullptr}}});
      }
      for (const auto& [way, parallel] : ways) {
        Run run(std::string(ek::isa_name(isa)) + ", " + way, isa, parallel, fill++);
        Outcome outcome = attempt(run, body);
        if (first.name.empty()) {
          first = std::move(outcome);
        } else {
          compare(first, outcome);
        }
      }
    }
    if (as_device) {
      Run run("as a device does", ek::Isa::kScalar, ek::pool(1), fill, true);
      compare(first, attempt(run, body));
    }
    refused_ = refused_ || !first.refusal.empty();
    add(&refused_, sizeof refused_);
    for (const auto& bytes : first.results) add(bytes.data(), bytes.size());
  }

  void refuses() const {
    if (!refused_) give_up("wrong arguments were taken");
  }

  [[noreturn]] void give_up(const std::string& why) const {
    std::fprintf(stderr, "%s: %s\n", problem_.c_str(), why.c_str());
    std::abort();  // a fuzzer sees it, and keeps the input
  }

  bool refused() const { return refused_; }
  uint64_t digest() const { return digest_; }

 private:
  struct Outcome {
    std::string name, refusal;
    std::vector<std::vector<uint8_t>> results;
  };

  static Outcome attempt(Run& run, const std::function<void(Run&)>& body) {
    Outcome outcome;
    outcome.name = run.name();
    try {
      body(run);
      outcome.results = run.results();
    } catch (const ek::Error& error) {
      outcome.refusal = error.what();
    }
    return outcome;
  }

  void compare(const Outcome& want, const Outcome& got) const {
    // What is said may depend on where memory lies: of two overlapping arrays one can also be too long.
    if (want.refusal.empty() != got.refusal.empty())
      fail(want, got, "refusals '" + want.refusal + "' and '" + got.refusal + "'");
    for (size_t i = 0; i < want.results.size(); ++i) {
      if (want.results[i] == got.results[i]) continue;
      size_t at = 0;
      while (want.results[i][at] == got.results[i][at]) ++at;
      fail(want, got,
           "result " + std::to_string(i) + " from byte " + std::to_string(at) + " of " +
               std::to_string(want.results[i].size()));
    }
  }

  [[noreturn]] void fail(const Outcome& want, const Outcome& got, const std::string& what) const {
    give_up("'" + want.name + "' and '" + got.name + "' differ in " + what);
  }

  // FNV-1a.
  void add(const void* data, size_t size) {
    const uint8_t* bytes = static_cast<const uint8_t*>(data);
    for (size_t i = 0; i < size; ++i) digest_ = (digest_ ^ bytes[i]) * 0x100000001b3u;
  }

  std::string problem_;
  bool threads_;
  bool refused_ = false;
  uint64_t digest_ = 0xcbf29ce484222325u;
};

using Exercise = void (*)(Source& source, Check& check);

inline std::map<std::string, Exercise>& operators() {
  static std::map<std::string, Exercise> all;
  return all;
}

struct Register {
  Register(const char* name, Exercise exercise) { operators()[name] = exercise; }
};

}  // namespace test
