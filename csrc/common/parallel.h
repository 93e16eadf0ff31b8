// How a kernel spreads work: it cuts the work into numbered tasks and hands them to whoever owns the threads.
#pragma once

#include <cstdint>

namespace ek {

// Runs tasks [begin, end) of the work described by `context`. Never throws.
using RangeFn = void (*)(const void* context, int64_t begin, int64_t end);

// A host's parallel-for: calls `fn` so that every task in [0, count) runs exactly once, and returns when all
// have. A host with threads of its own (ONNX Runtime, TBB, TVM) fills in its function and state.
struct Parallel {
  void (*run)(void* state, int64_t count, RangeFn fn, const void* context);
  void* state;
  int threads = 0;  // that may work at once, 0 if unknown: the cut of the work may follow it, no result may

  void operator()(int64_t count, RangeFn fn, const void* context) const { run(state, count, fn, context); }
};

// Our own threads, shared by the process and started on first use: at most `threads` at once, the caller
// included. A call that finds them busy with another call's work does its own on the calling thread.
Parallel pool(int threads);

}  // namespace ek
