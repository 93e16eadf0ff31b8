// The body of an inversion, compiled once per instruction set. Included after one of common/simd_*-inl.h;
// nothing of the standard library may be used here (see platform.h).
#pragma once

#include "inverse/inverse_plan.h"
#include "sample/fetch-inl.h"
#include "sample/locate-inl.h"
#include "sample/rows-inl.h"

namespace ek {
namespace EK_ISA {

// The larger of a >= 0 and |b|, or the one that is NaN.
EK_INLINE F larger(F a, F b) {
  b = max_(b, F(0.0f) - b);
  return select(is_nan(b), b, max_(b, a));
}

EK_INLINE uint32_t bits_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

// As whole numbers, bits of floats that are not negative are in their order, and NaN is above all.
EK_INLINE void raise_to(float* residual, uint32_t bits) {
  uint32_t* stored = reinterpret_cast<uint32_t*>(residual);
#if defined(__CUDA_ARCH__)
  if (*stored < bits) atomicMax(stored, bits);
#else
  uint32_t seen = __atomic_load_n(stored, __ATOMIC_RELAXED);
  while (seen < bits &&
         !__atomic_compare_exchange_n(stored, &seen, bits, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
#endif
}

// Up to kBlock voxels of a row: where they are in component 0 of `flow` (whole) and of `out` (from there).
struct Search {
  const float* flow;
  float* out;
  int64_t voxels;
  Block block;
  bool closed[kBlock];  // per vector: every lane is within the tolerance
  alignas(64) float residual[kBlock];
};

// Evaluates the residual of one vector and, if it may go on, moves those lanes that are not done. Returns
// whether any was.
template <int kDims>
EK_INLINE bool step(const InversePlan& plan, Search& search, int at, int count, bool last) {
  F there[kDims], now[kDims], residual(0.0f);
  for (int c = 0; c < kDims; ++c) {
    there[c] = linear_sample<kDims>(plan.sample, search.flow + c * search.voxels, search.block, at);
    now[c] = load_some(search.out + c * search.voxels + at, count);
    residual = larger(residual, now[c] + there[c]);
  }
  if (count < kLanes) residual = select(greater_equal(I(count - 1), int_iota()), residual, F(0.0f));
  store(search.residual + at, residual);
  const M done = greater_equal(F(plan.args.tolerance), residual);
  search.closed[at / kLanes] = all(done);
  if (last || all(done)) return false;
  for (int c = 0; c < kDims; ++c) {
    store_some(search.out + c * search.voxels + at, select(done, now[c], F(0.0f) - there[c]), count);
  }
  return true;
}

template <int kDims>
EK_INLINE void search_block(const InversePlan& plan, const Row& row, int64_t x, int count, Search& search) {
  const int64_t first = row.n * kDims * search.voxels;
  search.flow = plan.args.flow.as<const float>() + first;
  search.out = plan.args.out.as<float>() + first + row.first + x;
  each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
    search.closed[at / kLanes] = false;
    for (int c = 0; c < kDims; ++c) {
      const float* flow = search.flow + row.first + x + c * search.voxels + at;
      store_some(search.out + c * search.voxels + at, F(0.0f) - load_some(flow, lanes), lanes);
    }
  });
  bool moved = true;
  for (int iteration = 0; moved; ++iteration) {
    locate<kDims, Displacement<float, kDims>>(plan.sample, row, x, count, search.block);
    moved = false;
    each_vector(count, [&](int at, int lanes) __attribute__((always_inline)) {
      if (!search.closed[at / kLanes]) {
        moved |= step<kDims>(plan, search, at, lanes, iteration == plan.args.iterations);
      }
    });
  }
  uint32_t largest = 0;
  for (int i = 0; i < count; ++i) {
    const uint32_t bits = bits_of(search.residual[i]);
    largest = largest < bits ? bits : largest;
  }
  raise_to(plan.args.residual + row.n, largest);
}

#if !defined(EK_DEVICE)  // whose threads have a voxel each

void inverse_tasks(const void* context, int64_t begin, int64_t end) {
  const InversePlan& plan = *static_cast<const InversePlan*>(context);
  Search search;
  search.voxels = plan.args.flow.voxels();
  each_block(plan.sample, begin, end, [&](const Row& row, int64_t x, int count) {
    if (plan.args.dims == 3) {
      search_block<3>(plan, row, x, count, search);
    } else {
      search_block<2>(plan, row, x, count, search);
    }
  });
}

#endif

}  // namespace EK_ISA
}  // namespace ek
