#include "common/parallel.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <system_error>
#include <thread>

namespace ek {
namespace {

struct Job {
  RangeFn fn;
  const void* context;
  int64_t count;
  std::atomic<int64_t> next{0};

  void work() {
    for (int64_t task = next++; task < count; task = next++) fn(context, task, task + 1);
  }
};

class Pool {
 public:
  // The pool that belongs to this process: threads do not survive fork(), so a child starts its own and
  // leaves its copy of the parent's alone. Never destroyed: at exit the workers sleep, and joining them could
  // hang.
  static Pool& instance() {
    static std::mutex guard;
    static Pool* pool = nullptr;
    static pid_t owner = 0;
    std::lock_guard<std::mutex> lock(guard);
    if (owner != getpid()) {
      pool = new Pool;
      owner = getpid();
    }
    return *pool;
  }

  void run(int threads, int64_t count, RangeFn fn, const void* context) {
    const int helpers = static_cast<int>(std::min<int64_t>(threads, count)) - 1;
    std::unique_lock<std::mutex> region(region_, std::try_to_lock);
    if (helpers <= 0 || !region.owns_lock()) {
      fn(context, 0, count);
      return;
    }
    Job job{fn, context, count};
    {
      std::lock_guard<std::mutex> lock(mutex_);
      hire(helpers);
      job_ = &job;
      wanted_ = active_ = std::min(helpers, workers_);
    }
    start_.notify_all();
    job.work();
    std::unique_lock<std::mutex> lock(mutex_);
    // Helpers that have not begun are no longer needed; those that have must finish before `job` goes away.
    active_ -= wanted_;
    wanted_ = 0;
    done_.wait(lock, [this] { return active_ == 0; });
    job_ = nullptr;
  }

 private:
  // Where the system grants no more threads, the work is done by those that exist.
  void hire(int helpers) {
    try {
      for (; workers_ < helpers; ++workers_) std::thread(&Pool::serve, this).detach();
    } catch (const std::system_error&) {
    }
  }

  void serve() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
      start_.wait(lock, [this] { return wanted_ > 0; });
      --wanted_;
      Job* job = job_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--active_ == 0) done_.notify_one();
    }
  }

  std::mutex region_;  // held for a whole parallel region
  std::mutex mutex_;   // guards what follows
  std::condition_variable start_, done_;
  Job* job_ = nullptr;
  int workers_ = 0;  // threads that exist
  int wanted_ = 0;   // helpers the current job still waits for
  int active_ = 0;   // helpers wanted or at work
};

void run_pool(void* state, int64_t count, RangeFn fn, const void* context) {
  Pool::instance().run(static_cast<int>(reinterpret_cast<std::intptr_t>(state)), count, fn, context);
}

void run_serial(void*, int64_t count, RangeFn fn, const void* context) { fn(context, 0, count); }

}  // namespace

Parallel pool(int threads) {
  if (threads <= 1) return {run_serial, nullptr, 1};
  return {run_pool, reinterpret_cast<void*>(static_cast<std::intptr_t>(threads)), threads};
}

}  // namespace ek
