// The operators in TVM: functions of its C interface, which compiled networks are linked with, object and
// kernels, so that a network is one file. Its tensors are read and written in place, by its threads. No C++
// exception and no C++ object crosses the interface.
#include <stdexcept>

#include "hosts/tvm_arguments.h"

namespace {

// tvm/runtime/c_backend_api.h says the same, where the rest of TVM is installed.
struct Group {
  void* sync;
  int32_t tasks;
};
using TaskFn = int (*)(int task, Group* group, void* data);
using LaunchFn = int (*)(TaskFn fn, void* data, int tasks);

}  // namespace

// Set by the loader of TVM's runtime to its TVMBackendParallelLaunch, in every library that has such a
// symbol. The code of networks has it too, weak, and calls the same threads.
extern "C" {
__attribute__((weak, visibility("default"))) LaunchFn __TVMBackendParallelLaunch = nullptr;
}

namespace ek {
namespace tvm {
namespace {

constexpr int kAllThreads = 0;

struct Loop {
  RangeFn fn;
  const void* context;
  int64_t count;
  int64_t next;
};

// The body of one thread, of as many as the runtime lends: it takes tasks until none is left.
int take_tasks(int, Group*, void* data) {
  Loop& loop = *static_cast<Loop*>(data);
  for (;;) {
    const int64_t task = __atomic_fetch_add(&loop.next, int64_t{1}, __ATOMIC_RELAXED);
    if (task >= loop.count) return 0;
    loop.fn(loop.context, task, task + 1);
  }
}

void run_parallel(void*, int64_t count, RangeFn fn, const void* context) {
  // Nobody has threads to lend where the library was loaded without TVM's runtime.
  if (count <= 1 || !__TVMBackendParallelLaunch) return fn(context, 0, count);
  Loop loop{fn, context, count, 0};
  if (__TVMBackendParallelLaunch(take_tasks, &loop, kAllThreads) != 0)
    throw std::runtime_error("the threads of TVM failed");
}

int call(const Operator& op, const TVMFFIAny* args, int32_t count) {
  return guarded([&] {
    const Arguments found = read(op, args, count, Memory::kProcessor);
    hosts::check_values(op, found.values.data());
    hosts::Call call;
    call.inputs = found.inputs;
    call.output = found.output;
    call.values = found.values.data();
    call.isa = hosts::chosen_isa();
    call.parallel = {run_parallel, nullptr, 0};
    hosts::run(op, call);
  });
}

}  // namespace
}  // namespace tvm
}  // namespace ek

EK_TVM_FUNCTIONS
