// Tasks that need memory of their own while they run. Each of a few workers has a part of a workspace, and
// takes the next task until none is left.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace ek {

// What a caller provides: for as many workers as may be of use, the bytes that the operator says each needs.
struct Workspace {
  void* data = nullptr;  // at a multiple of 64
  int workers = 1;
  int64_t bytes = 0;  // of all, where the caller wants to know
};

// The parts of a workspace begin at multiples of this, which is a line of the cache.
constexpr int64_t kWorkspaceAlign = 64;

constexpr int64_t aligned(int64_t bytes) {
  return (bytes + kWorkspaceAlign - 1) / kWorkspaceAlign * kWorkspaceAlign;
}

struct Workers {
  Workspace workspace;
  int64_t bytes = 0;  // of one worker, aligned
  int64_t tasks = 0;
  mutable int64_t next = 0;  // of the tasks; 0 when they begin
};

// Calls task(index, memory) for tasks nobody has taken yet: the body of workers [begin, end).
template <class Task>
EK_INLINE void take_tasks(const Workers& workers, int64_t begin, int64_t end, const Task& task) {
  for (int64_t worker = begin; worker < end; ++worker) {
    char* memory = static_cast<char*>(workers.workspace.data) + worker * workers.bytes;
    for (;;) {
      const int64_t index = __atomic_fetch_add(&workers.next, int64_t{1}, __ATOMIC_RELAXED);
      if (index >= workers.tasks) break;
      task(index, memory);
    }
  }
}

}  // namespace ek
