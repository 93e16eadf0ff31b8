// CUDA's words for a processor that plays the GPU, one block after the other: its threads are fibers, which
// change at barriers alone, and in an order that a seed gives. Copies that need not wait come as late as they
// may, or at once; shared memory begins as what is no number.
#pragma once

#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <tuple>
#include <utility>
#include <vector>

#define __device__
#define __host__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
#define __shared__ static

struct Dim3 {
  unsigned x = 0, y = 0, z = 0;
};
inline Dim3 threadIdx, blockIdx, blockDim, gridDim;

using half = _Float16;
using __half = half;
inline float __half2float(half a) { return a; }
inline half __float2half(float a) { return static_cast<half>(a); }
inline half __float2half_rn(float a) { return static_cast<half>(a); }
inline bool __hgt(half a, half b) { return a > b; }
inline bool __hlt(half a, half b) { return a < b; }
inline bool __heq(half a, half b) { return a == b; }
inline bool __hle(half a, half b) { return a <= b; }
inline bool __hge(half a, half b) { return a >= b; }
inline bool __hne(half a, half b) { return a != b; }
inline half __habs(half a) { return static_cast<half>(std::fabs(static_cast<float>(a))); }
inline half hexp(half a) { return static_cast<half>(std::exp(static_cast<float>(a))); }
inline half hexp2(half a) { return static_cast<half>(std::exp2(static_cast<float>(a))); }
inline half hlog(half a) { return static_cast<half>(std::log(static_cast<float>(a))); }
inline half htanh(half a) { return static_cast<half>(std::tanh(static_cast<float>(a))); }
inline half hsqrt(half a) { return static_cast<half>(std::sqrt(static_cast<float>(a))); }
inline half hrsqrt(half a) { return static_cast<half>(1.0F / std::sqrt(static_cast<float>(a))); }
inline half hfloor(half a) { return static_cast<half>(std::floor(static_cast<float>(a))); }
inline float __expf(float a) { return std::exp(a); }
inline float __logf(float a) { return std::log(a); }
inline float __powf(float a, float b) { return std::pow(a, b); }
inline float __fdividef(float a, float b) { return a / b; }
inline float rsqrtf(float a) { return 1.0F / std::sqrt(a); }
inline int max(int a, int b) { return a > b ? a : b; }
inline int min(int a, int b) { return a < b ? a : b; }
inline float max(float a, float b) { return std::fmax(a, b); }
inline float min(float a, float b) { return std::fmin(a, b); }
inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
template <class T>
T __ldg(const T* from) {
  return *from;
}

#define EK_VECTORS(type, name)                                                                \
  struct alignas(2 * sizeof(type)) name##2 { type x, y; };                                    \
  struct name##3 { type x, y, z; };                                                           \
  struct alignas(4 * sizeof(type) > 16 ? 16 : 4 * sizeof(type)) name##4 { type x, y, z, w; }; \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }                            \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EK_VECTORS(float, float)
EK_VECTORS(int, int)
EK_VECTORS(unsigned, uint)
EK_VECTORS(short, short)
EK_VECTORS(unsigned short, ushort)
EK_VECTORS(signed char, char)
EK_VECTORS(unsigned char, uchar)
EK_VECTORS(double, double)
EK_VECTORS(long long, longlong)
EK_VECTORS(unsigned long long, ulonglong)
struct alignas(4) half2 {
  half x, y;
};
using __half2 = half2;
inline half2 make_half2(half x, half y) { return {x, y}; }
inline half2 __halves2half2(half x, half y) { return {x, y}; }

// Fibers.

struct EkLaunch {
  Dim3 grid, block;
  unsigned shared = 0;
  unsigned seed = 0;
  bool early = false;
};

struct EkBarrier {
  unsigned arrived = 0, generation = 0;
};

struct EkCopy {
  void* to;
  unsigned char bytes[16];
};

struct EkFiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  Dim3 index;
  unsigned linear = 0;
  bool done = false;
  std::vector<std::vector<EkCopy>> groups;
  std::vector<EkCopy> open;
};

struct EkWarp {
  EkBarrier barrier;
  uint32_t words[32][8];
  const void* rows[32];
};

constexpr size_t kStack = 256 * 1024;
inline ucontext_t ek_scheduler;
inline EkFiber* ek_fiber = nullptr;
inline std::vector<EkFiber> ek_fibers;
inline std::vector<EkWarp> ek_warps;
inline EkBarrier ek_block;
inline bool ek_moved = false, ek_early = false;
inline const std::function<void()>* ek_body = nullptr;
inline unsigned char* ek_shared = nullptr;
inline unsigned ek_shared_bytes = 0;

[[noreturn]] inline void ek_fail(const char* what) {
  std::fprintf(stderr, "the processor that plays the GPU: %s\n", what);
  std::abort();
}

inline void ek_wait(EkBarrier& barrier, unsigned expected) {
  if (++barrier.arrived == expected) {
    barrier.arrived = 0;
    ++barrier.generation;
    ek_moved = true;
    return;
  }
  const unsigned before = barrier.generation;
  EkFiber* self = ek_fiber;
  while (barrier.generation == before) swapcontext(&self->context, &ek_scheduler);
}

inline unsigned ek_threads() { return static_cast<unsigned>(ek_fibers.size()); }
inline void __syncthreads() { ek_wait(ek_block, ek_threads()); }
inline EkWarp& ek_warp() { return ek_warps[ek_fiber->linear / 32]; }
inline unsigned ek_lane() { return ek_fiber->linear % 32; }
inline void __syncwarp() {
  ek_wait(ek_warp().barrier, std::min(32U, ek_threads() - ek_fiber->linear / 32 * 32));
}

template <class T>
T ek_exchange(T value, unsigned from) {
  static_assert(sizeof(T) <= 8);
  EkWarp& warp = ek_warp();
  std::memcpy(warp.words[ek_lane()], &value, sizeof(T));
  __syncwarp();
  T result;
  std::memcpy(&result, warp.words[from < 32 ? from : ek_lane()], sizeof(T));
  __syncwarp();
  return result;
}
inline unsigned __activemask() { return 0xffffffffU; }
template <class T>
T __shfl_sync(unsigned, T value, int from, int width = 32) {
  return ek_exchange(value, ek_lane() / width * width + static_cast<unsigned>(from) % width);
}
template <class T>
T __shfl_down_sync(unsigned, T value, unsigned by, int width = 32) {
  const unsigned from = ek_lane() + by;
  return ek_exchange(value, from / width == ek_lane() / width ? from : ek_lane());
}
template <class T>
T __shfl_xor_sync(unsigned, T value, unsigned mask, int = 32) {
  return ek_exchange(value, ek_lane() ^ mask);
}

// The instructions of edgekit/backends/tvm/cuda_kernel.py, as PTX's manual has them.

inline void ek_check_shared(const void* at, unsigned bytes) {
  const auto* byte = static_cast<const unsigned char*>(at);
  if (byte < ek_shared || byte + bytes > ek_shared + ek_shared_bytes)
    ek_fail("an address outside shared memory");
  if (reinterpret_cast<uintptr_t>(at) % bytes) ek_fail("an address that is no multiple of the access");
}

inline void ek_load_matrices(unsigned* to, const void* row) {
  ek_check_shared(row, 16);
  EkWarp& warp = ek_warp();
  const unsigned lane = ek_lane();
  warp.rows[lane] = row;
  __syncwarp();
  for (unsigned m = 0; m < 4; ++m) {
    const auto* from = static_cast<const unsigned char*>(warp.rows[m * 8 + lane / 4]);
    std::memcpy(&to[m], from + lane % 4 * 4, 4);
  }
  __syncwarp();
}

// Which of a lane's words holds a number of A or B, and where in it; lane / 4 is the row or the column.
template <class T, class Sum>
void ek_mma(Sum* d, const unsigned* a, const unsigned* b) {
  constexpr unsigned per_word = 4 / sizeof(T), half_depth = 4 * per_word;
  EkWarp& warp = ek_warp();
  const unsigned lane = ek_lane();
  std::memcpy(warp.words[lane], a, 16);
  std::memcpy(warp.words[lane] + 4, b, 8);
  __syncwarp();
  const auto number = [&](unsigned owner, unsigned word, unsigned k) {
    T value;
    const auto* bytes =
        reinterpret_cast<const unsigned char*>(&warp.words[owner * 4 + k % half_depth / per_word][word]);
    std::memcpy(&value, bytes + k % per_word * sizeof(T), sizeof(T));
    return value;
  };
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4, lower = i / 2, column = lane % 4 * 2 + i % 2;
    for (unsigned k = 0; k < 2 * half_depth; ++k) {
      const unsigned upper = k / half_depth;
      const T left = number(row, upper * 2 + lower, k), right = number(column, 4 + upper, k);
      d[i] += static_cast<Sum>(left) * static_cast<Sum>(right);
    }
  }
  __syncwarp();
}
inline void ek_mma_float16(float* d, const unsigned* a, const unsigned* b) { ek_mma<half, float>(d, a, b); }
inline void ek_mma_int8(int* d, const unsigned* a, const unsigned* b) { ek_mma<int8_t, int>(d, a, b); }
inline void ek_mma_tf32(float* d, const unsigned* a, const unsigned* b) {
  unsigned left[4], right[2];  // the lower 13 bits do not count
  for (int i = 0; i < 4; ++i) left[i] = a[i] & 0xffffe000U;
  for (int i = 0; i < 2; ++i) right[i] = b[i] & 0xffffe000U;
  ek_mma<float, float>(d, left, right);
}

inline void ek_split(unsigned* high, unsigned* low, const unsigned* all) {
  *high = *all & 0xffffe000U;
  float whole, upper;
  std::memcpy(&whole, all, 4);
  std::memcpy(&upper, high, 4);
  const float rest = whole - upper;
  std::memcpy(low, &rest, 4);
}

inline void ek_copy_async(void* to, const void* from, bool wanted) {
  ek_check_shared(to, 16);
  if (reinterpret_cast<uintptr_t>(from) % 16) ek_fail("a copy from an address that is no multiple of 16");
  EkCopy copy{to, {}};
  if (wanted) std::memcpy(copy.bytes, from, 16);
  if (ek_early)
    std::memcpy(to, copy.bytes, 16);
  else
    ek_fiber->open.push_back(copy);
}
inline void ek_close_group() {
  ek_fiber->groups.push_back(std::move(ek_fiber->open));
  ek_fiber->open.clear();
}
inline void ek_wait_groups(size_t left) {
  auto& groups = ek_fiber->groups;
  while (groups.size() > left) {
    for (const EkCopy& copy : groups.front()) std::memcpy(copy.to, copy.bytes, 16);
    groups.erase(groups.begin());
  }
}
inline void ek_wait_groups_0() { ek_wait_groups(0); }
inline void ek_wait_groups_1() { ek_wait_groups(1); }
inline void ek_barrier() { __syncthreads(); }
inline void ek_warp_barrier() { __syncwarp(); }
inline void ek_move(void* to, const void* from, unsigned bytes) {
  if (reinterpret_cast<uintptr_t>(to) % bytes || reinterpret_cast<uintptr_t>(from) % bytes)
    ek_fail("a vector at an address that is no multiple of it");
  std::memcpy(to, from, bytes);
}
inline void ek_move_16(void* to, const void* from) { ek_move(to, from, 16); }
inline void ek_move_8(void* to, const void* from) { ek_move(to, from, 8); }
inline void ek_move_4(void* to, const void* from) { ek_move(to, from, 4); }

// Launches.

inline void ek_enter() {
  (*ek_body)();
  ek_fiber->done = true;
  ek_moved = true;
  swapcontext(&ek_fiber->context, &ek_scheduler);
}

inline void ek_run_block(std::mt19937& random) {
  for (EkFiber& fiber : ek_fibers) {
    fiber.done = false;
    fiber.groups.clear();
    fiber.open.clear();
    getcontext(&fiber.context);
    fiber.context.uc_stack = {fiber.stack.get(), 0, kStack};
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, ek_enter, 0);
  }
  std::vector<EkFiber*> waiting;
  for (EkFiber& fiber : ek_fibers) waiting.push_back(&fiber);
  while (!waiting.empty()) {
    ek_moved = false;
    std::shuffle(waiting.begin(), waiting.end(), random);
    for (EkFiber* fiber : waiting) {
      ek_fiber = fiber;
      threadIdx = fiber->index;
      swapcontext(&ek_scheduler, &fiber->context);
    }
    waiting.erase(std::remove_if(waiting.begin(), waiting.end(), [](EkFiber* f) { return f->done; }),
                  waiting.end());
    if (!ek_moved && !waiting.empty()) ek_fail("threads wait for each other at different barriers");
  }
}

inline void ek_run(const EkLaunch& launch, const std::function<void()>& body) {
  gridDim = launch.grid;
  blockDim = launch.block;
  const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
  if (ek_fibers.size() != threads) {
    ek_fibers = std::vector<EkFiber>(threads);
    for (unsigned i = 0; i < threads; ++i) {
      EkFiber& fiber = ek_fibers[i];
      fiber.stack.reset(new char[kStack]);
      fiber.linear = i;
      fiber.index = {i % launch.block.x, i / launch.block.x % launch.block.y,
                     i / launch.block.x / launch.block.y};
    }
  }
  ek_warps = std::vector<EkWarp>((threads + 31) / 32);
  ek_early = launch.early;
  ek_body = &body;
  ek_shared_bytes = launch.shared;
  ek_shared = static_cast<unsigned char*>(std::aligned_alloc(1024, (launch.shared / 1024 + 1) * 1024));
  std::mt19937 random(launch.seed);
  for (unsigned z = 0; z < launch.grid.z; ++z)
    for (unsigned y = 0; y < launch.grid.y; ++y)
      for (unsigned x = 0; x < launch.grid.x; ++x) {
        blockIdx = {x, y, z};
        std::memset(ek_shared, 0xff, launch.shared);
        ek_run_block(random);
      }
  std::free(ek_shared);
}

// What the driver looks for: a kernel's launch, from pointers to its arguments.
template <class... A, size_t... I>
void ek_call(void (*kernel)(A...), const EkLaunch& launch, void** arguments, std::index_sequence<I...>) {
  const std::tuple<A...> values(*static_cast<A*>(arguments[I])...);
  ek_run(launch, [&] { std::apply(kernel, values); });
}
template <class... A>
void ek_call(void (*kernel)(A...), const EkLaunch& launch, void** arguments) {
  ek_call(kernel, launch, arguments, std::index_sequence_for<A...>());
}
#define EK_LAUNCH(kernel)                                                     \
  extern "C" void kernel##_launch(const EkLaunch* launch, void** arguments) { \
    ek_call(kernel, *launch, arguments);                                      \
  }
