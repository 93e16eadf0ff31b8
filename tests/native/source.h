// Where the arguments of a native test come from: random numbers, or the bytes of a fuzzer. What is drawn is
// the same on every machine, so that the digests of results can be compared between machines.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>

namespace test {

// Elements of exactly the given number, in memory of their own: a sanitizer sees every access beside them.
// Some arrays begin `skip` elements in, so that addresses are aligned to the element and to nothing more.
template <class T>
class Array {
 public:
  explicit Array(int64_t size, int64_t skip = 0) : memory_(new T[size + skip]), skip_(skip), size_(size) {}
  T* data() { return memory_.get() + skip_; }
  const T* data() const { return memory_.get() + skip_; }
  int64_t size() const { return size_; }
  T& operator[](int64_t i) { return data()[i]; }
  const T& operator[](int64_t i) const { return data()[i]; }

 private:
  std::unique_ptr<T[]> memory_;
  int64_t skip_, size_;
};

class Source {
 public:
  virtual ~Source() = default;
  virtual uint32_t bits() = 0;
  // The largest number of elements worth asking for.
  virtual int64_t budget() = 0;

  int64_t below(int64_t n) { return n > 1 ? bits() % n : 0; }
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
  bool one_in(int64_t n) { return below(n) == n - 1; }  // false where a fuzzer has no bytes left

  template <class T>
  T any(std::initializer_list<T> of) {
    return *(of.begin() + below(static_cast<int64_t>(of.size())));
  }

  // A length around the vector widths and block sizes, or any other, at most `limit`.
  int64_t axis(int64_t limit) {
    const int64_t edges[] = {1,  2,  3,  4,  5,  7,  8,  9,   15,  16,  17,
                             23, 31, 32, 33, 61, 64, 67, 255, 256, 257, 521};
    const int64_t length = one_in(3) ? between(1, 40) : edges[below(sizeof edges / sizeof *edges)];
    return std::min(length, std::max<int64_t>(1, limit));
  }
};

// splitmix64.
class Random : public Source {
 public:
  explicit Random(uint64_t seed, int64_t budget = 4096) : state_(seed), budget_(budget) {}
  uint32_t bits() override {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return static_cast<uint32_t>((z ^ (z >> 31)) >> 32);
  }
  int64_t budget() override { return budget_; }

 private:
  uint64_t state_;
  int64_t budget_;
};

// A fuzzer's bytes: two per draw, zeros when they are used up.
class Bytes : public Source {
 public:
  Bytes(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}
  uint32_t bits() override { return next() | next() << 8; }
  int64_t budget() override { return 2048; }

 private:
  uint32_t next() { return at_ < end_ ? *at_++ : 0u; }
  const uint8_t *at_, *end_;
};

inline float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// Numbers that break what is only tried with ordinary ones.
inline float special(Source& source) {
  const float values[] = {from_bits(0x7fc00000),
                          from_bits(0x7f800000),
                          from_bits(0xff800000),
                          -0.0f,
                          1e30f,
                          -1e30f,
                          2147483648.0f,
                          -2147483648.0f,
                          16777216.0f,
                          3.4e38f,
                          -3.4e38f,
                          1e-40f,
                          0.5f,
                          -0.5f,
                          from_bits(0x3effffff),
                          from_bits(0xffc00000)};
  return values[source.below(sizeof values / sizeof *values)];
}

// Floats of one of several kinds, within +-scale; in some arrays a few are special. Their values come from a
// generator of their own, so that few draws decide them all.
inline Array<float> floats(Source& source, int64_t count, float scale) {
  Array<float> out(count, source.one_in(2) ? source.between(1, 3) : 0);
  const int64_t kind = source.below(6);
  Random random(source.bits());
  const auto unit = [&] { return static_cast<float>(random.below(1 << 20)) / (1 << 19) - 1.0f; };
  const float constant = unit() * scale;
  for (int64_t i = 0; i < count; ++i) {
    switch (kind) {
      case 0:  // integers and halves
        out[i] = static_cast<float>(random.below(4 * static_cast<int64_t>(scale) + 1)) * 0.5f - scale;
        break;
      case 1:
        out[i] = constant;
        break;
      case 2:  // almost constant
        out[i] = constant + unit() * 0.01f;
        break;
      case 3:
        out[i] = unit();
        break;
      case 4:
        out[i] = unit() * scale;
        break;
      default:
        out[i] = 0.0f;
    }
  }
  if (count == 0) return out;
  if (source.one_in(3)) {
    for (int64_t left = source.between(1, 6); left > 0; --left) out[source.below(count)] = special(source);
  }
  if (source.one_in(16)) {
    out[source.below(count)] = from_bits(source.bits() << 16 | (source.bits() & 0xffff));
  }
  return out;
}

}  // namespace test
