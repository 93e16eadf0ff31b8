// What the words of an instruction set (common/simd_*-inl.h) are tried on, as plain data.
#pragma once

#include <cstdint>

#include "common/half.h"

namespace test {

constexpr int64_t kTable = 61;  // elements of a table to gather from

struct Words {
  int64_t count = 0;  // of every array, a multiple of any number of lanes
  int64_t tail = 0;   // of the arrays that end in the middle of a vector
  const float *a = nullptr, *b = nullptr, *odd = nullptr, *table = nullptr;
  const int32_t *i = nullptr, *j = nullptr, *index = nullptr;  // index < kTable - 1
  const ek::Half *halves = nullptr, *half_table = nullptr;
  const int16_t *shorts = nullptr, *short_table = nullptr;
  const uint8_t* bytes = nullptr;

  // `count` elements for every word, in the order of words-inl.h.
  float* floats_out = nullptr;
  int32_t* ints_out = nullptr;
  ek::Half* halves_out = nullptr;
  int16_t* shorts_out = nullptr;
  uint8_t* bytes_out = nullptr;
  float* odd_out = nullptr;
  int32_t* wrong_out = nullptr;  // one number: how often a word about all lanes is wrong
};
constexpr int64_t kFloatWords = 29, kIntWords = 9;

}  // namespace test

namespace ek {
namespace scalar {
void words(const test::Words& words);
}
namespace avx2 {
void words(const test::Words& words);
}
namespace avx512 {
void words(const test::Words& words);
}
namespace neon {
void words(const test::Words& words);
}
}  // namespace ek
