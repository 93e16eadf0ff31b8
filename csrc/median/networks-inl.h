// Networks of comparators, made by the compiler: they sort, merge or select without a branch, so that every
// lane of a vector works on a window of its own. Included after one of common/simd_*-inl.h.
//
// Lists are merged by Batcher's odd-even merge (Knuth, The Art of Computer Programming, vol. 3, 5.3.4), for
// lists of any lengths. What no wanted rank depends on is left out.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace ek {
namespace EK_ISA {

// Whether a network becomes straight code, each value in a register or at a known place: twice as fast as a
// loop over its table. A sanitizer's checks of that code would take minutes to compile.
#if defined(__has_feature)
#define EK_HAS_FEATURE(name) __has_feature(name)
#else
#define EK_HAS_FEATURE(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || EK_HAS_FEATURE(address_sanitizer)
constexpr bool kStraight = false;
#else
constexpr bool kStraight = true;
#endif

// Comparators put the smaller value on wire `low` and the larger one on wire `high`.
template <int kWires>
struct Network {
  static constexpr int kMost = kWires * 8 + 8;

  int count = 0;
  uint16_t low[kMost] = {}, high[kMost] = {};
  bool wants_low[kMost] = {}, wants_high[kMost] = {};
  uint16_t rank[kWires] = {};  // on which wire the value of a rank is, counted from 0

  constexpr void compare(int a, int b) {
    low[count] = static_cast<uint16_t>(a);
    high[count] = static_cast<uint16_t>(b);
    ++count;
  }

  // Merges sorted wires a[0 .. m) and b[0 .. n) to sorted wires out[0 .. m + n).
  constexpr void merge(const uint16_t* a, int m, const uint16_t* b, int n, uint16_t* out) {
    if (m == 0 || n == 0) {
      for (int i = 0; i < m + n; ++i) out[i] = m == 0 ? b[i] : a[i];
      return;
    }
    if (m == 1 && n == 1) {
      compare(a[0], b[0]);
      out[0] = a[0], out[1] = b[0];
      return;
    }
    uint16_t first[2][kWires] = {}, second[2][kWires] = {}, merged[2][kWires] = {};
    for (int i = 0; i < m; ++i) first[i % 2][i / 2] = a[i];
    for (int i = 0; i < n; ++i) second[i % 2][i / 2] = b[i];
    for (int i = 0; i < 2; ++i) merge(first[i], (m + 1 - i) / 2, second[i], (n + 1 - i) / 2, merged[i]);
    const int even = (m + 1) / 2 + (n + 1) / 2, odd = m / 2 + n / 2;
    int at = 0;
    out[at++] = merged[0][0];
    for (int i = 0; i < odd; ++i) {
      const bool pair = i + 1 < even;
      if (pair) compare(merged[1][i], merged[0][i + 1]);
      out[at++] = merged[1][i];
      if (pair) out[at++] = merged[0][i + 1];
    }
    for (int i = odd + 1; i < even; ++i) out[at++] = merged[0][i];
  }

  // Sorts lists of `size` wires each, which are sorted in themselves and follow each other from `first` on.
  constexpr void sort(int first, int lists, int size, uint16_t* out) {
    if (lists == 1) {
      for (int i = 0; i < size; ++i) out[i] = static_cast<uint16_t>(first + i);
      return;
    }
    uint16_t a[kWires] = {}, b[kWires] = {};
    const int half = (lists + 1) / 2;
    sort(first, half, size, a);
    sort(first + half * size, lists - half, size, b);
    merge(a, half * size, b, (lists - half) * size, out);
  }

  // Leaves out what ranks [from, to) do not depend on.
  constexpr void prune(int from, int to) {
    bool wanted[kWires] = {};
    for (int i = from; i < to; ++i) wanted[rank[i]] = true;
    for (int i = count - 1; i >= 0; --i) {
      wants_low[i] = wanted[low[i]];
      wants_high[i] = wanted[high[i]];
      wanted[low[i]] = wanted[high[i]] = wants_low[i] || wants_high[i];
    }
  }
};

// Finds ranks [kFrom, kTo) of the values of kLists sorted lists of kSize each.
template <int kLists, int kSize, int kFrom, int kTo>
struct Merge {
  static constexpr int kWires = kLists * kSize;
  static constexpr Network<kWires> make() {
    Network<kWires> made;
    made.sort(0, kLists, kSize, made.rank);
    made.prune(kFrom, kTo);
    return made;
  }
  static constexpr Network<kWires> network = make();
};

template <class Net, int kBegin, int kEnd>
EK_INLINE void compare(F* v) {
  if constexpr (kEnd - kBegin > 1) {
    constexpr int middle = (kBegin + kEnd) / 2;
    compare<Net, kBegin, middle>(v);
    compare<Net, middle, kEnd>(v);
  } else if constexpr (kEnd > kBegin) {
    constexpr int low = Net::network.low[kBegin], high = Net::network.high[kBegin];
    constexpr bool wants_low = Net::network.wants_low[kBegin], wants_high = Net::network.wants_high[kBegin];
    const F a = v[low], b = v[high];
    if constexpr (wants_low) v[low] = min_(a, b);
    if constexpr (wants_high) v[high] = max_(a, b);
  }
}

// Runs a network over its wires.
template <class Net>
EK_INLINE void run(F* v) {
  if constexpr (kStraight) {
    compare<Net, 0, Net::network.count>(v);
  } else {
    for (int i = 0; i < Net::network.count; ++i) {
      F *const low = v + Net::network.low[i], *const high = v + Net::network.high[i];
      const F a = *low, b = *high;
      *low = min_(a, b);
      *high = max_(a, b);
    }
  }
}

// The value of rank kRank, counted from 1, among those of a network and of a sorted list: the least of
// max(network[kRank - j], list[j]) over all j, as any such pair has kRank values that are not larger.
template <class Net, int kRank, int kBegin, int kEnd, class Read>
EK_INLINE F pick_rank(const F* v, const Read& list) {
  if constexpr (!kStraight) {
    F least = v[Net::network.rank[kRank - 1]];
    for (int i = 1; i < kEnd; ++i) {
      least = min_(least, max_(v[Net::network.rank[kRank - i - 1]], list(i - 1)));
    }
    return least;
  } else if constexpr (kEnd - kBegin > 1) {
    constexpr int middle = (kBegin + kEnd) / 2;
    return min_(pick_rank<Net, kRank, kBegin, middle>(v, list), pick_rank<Net, kRank, middle, kEnd>(v, list));
  } else {
    constexpr int wire = Net::network.rank[kRank - kBegin - 1];
    if constexpr (kBegin == 0) return v[wire];
    return max_(v[wire], list(kBegin - 1));
  }
}

}  // namespace EK_ISA
}  // namespace ek
