// Every word of an instruction set, once. Included after one of common/simd_*-inl.h.
#pragma once

#include "common/math-inl.h"
#include "words.h"

namespace ek {
namespace EK_ISA {

EK_INLINE void float_words(const test::Words& w, int64_t x) {
  float* at = w.floats_out + x;
  const auto put = [&](F lanes) __attribute__((always_inline)) {
    store(at, lanes);
    at += w.count;
  };
  const F a = load(w.a + x), b = load(w.b + x);
  const I index = load(w.index + x);
  put(a + b);
  put(a - b);
  put(a * b);
  put(a * b + a);  // must not be contracted
  put(a / b);
  put(sqrt_(a));
  put(abs_(a));
  put(pow2(min_(max_(load(w.i + x), I(-126)), I(127))));
  put(pow2_of(F(kExponents) + min_(max_(a, F(-127.0f)), F(127.0f))));
  put(exp_(a));
  put(floor_(a));
  put(min_(a, b));
  put(max_(a, b));
  put(select(greater_equal(a, b), a, b));
  put(select(greater(a, b), a, b));
  put(select(is_nan(a), b, a));
  put(select(both(greater_equal(a, b), greater_equal(b, F(0.0f))), a, b));
  put(to_float(load(w.i + x)));
  put(load(w.halves + x));
  put(load(w.bytes + x));
  put(load(w.shorts + x));
  put(gather(w.table, index));
  const M some = greater_equal(a, b);
  put(gather(w.table, select(some, index, I(1 << 28)), some));  // the others touch no memory
  F first, second;
  const auto pairs = [&](const auto* table) __attribute__((always_inline)) {
    gather_pairs(table, w.index + x, first, second);
    put(first);
    put(second);
  };
  pairs(w.table);
  pairs(w.half_table);
  pairs(w.short_table);
}

EK_INLINE void other_words(const test::Words& w, int64_t x) {
  int32_t* at = w.ints_out + x;
  const auto put = [&](I lanes) __attribute__((always_inline)) {
    store(at, lanes);
    at += w.count;
  };
  const F a = load(w.a + x);
  const I i = load(w.i + x), j = load(w.j + x);
  const auto within = [&](float low, float high)
                          __attribute__((always_inline)) { return min_(max_(a, F(low)), F(high)); };
  put(to_int(within(-2147483648.0f, 2147483520.0f)));
  put(i + j);
  put(i - j);
  put(i * j);
  put(i | j);
  put(min_(i, j));
  put(max_(i, j));
  put(select(greater_equal(i, j), i, j));
  put(select(greater_equal(a, F(0.5f)), i, j));
  store(w.halves_out + x, a);
  store(w.shorts_out + x, within(-32768.0f, 32767.0f));
  store(w.bytes_out + x, within(0.0f, 255.0f));
}

// Words about all lanes of a vector: what they should say depends on their number.
EK_INLINE int32_t wrong_words(const test::Words& w, int64_t x) {
  int32_t wrong = 0;
  const M above = greater(load(w.a + x), load(w.b + x));
  int expected = 0;
  for (int lane = 0; lane < kLanes; ++lane) expected += w.a[x + lane] > w.b[x + lane];
  wrong += count(above) != expected;
  wrong += all(above) != (expected == kLanes);

  float lanes[kLanes], iotas[kLanes];
  int32_t picks[kLanes], steps[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) picks[lane] = w.index[x + lane] % (2 * kLanes);
  store(lanes, pick(load(w.floats_out + x), load(w.floats_out + w.count + x), load(picks)));
  store(iotas, iota());
  store(steps, int_iota() + I(w.i[x]));
  for (int lane = 0; lane < kLanes; ++lane) {
    const int from = picks[lane] % kLanes;
    const float* row = w.floats_out + (picks[lane] < kLanes ? 0 : w.count) + x;
    wrong += float_to_bits(lanes[lane]) != float_to_bits(row[from]);
    wrong += iotas[lane] != static_cast<float>(lane) || steps[lane] != w.i[x] + lane;
  }
  wrong += !consecutive(load(steps));
  for (int lane = 0; lane < kLanes && kLanes > 1; ++lane) {
    steps[lane] += 1 << x % 16;
    wrong += consecutive(load(steps));
    steps[lane] -= 1 << x % 16;
  }
  return wrong;
}

void words(const test::Words& w) {
  *w.wrong_out = 0;
  for (int64_t x = 0; x < w.count; x += kLanes) {
    float_words(w, x);
    other_words(w, x);
    *w.wrong_out += wrong_words(w, x);
  }
  int64_t x = 0;
  for (; x + kLanes <= w.tail; x += kLanes) store(w.odd_out + x, load(w.odd + x));
  const int left = static_cast<int>(w.tail - x);
  if (left > 0) store_first(w.odd_out + x, load_first(w.odd + x, left), left);
}

}  // namespace EK_ISA
}  // namespace ek
