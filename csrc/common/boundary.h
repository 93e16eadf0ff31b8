// What a sample outside the image is worth: how `abcd` goes on at both ends.
#pragma once

#include <cstdint>

#include "common/platform.h"

namespace ek {

enum class Boundary : uint8_t {
  kZero,     // 000|abcd|000
  kEdge,     // aaa|abcd|ddd
  kMirror,   // dcb|abcd|cba
  kReflect,  // cba|abcd|dcb
  kWrap,     // bcd|abcd|abc
};

// The voxel of an axis that stands at any place on it or beside it; -1 where that is outside and 0.
EK_INLINE int64_t voxel_at(int64_t at, int64_t size, Boundary boundary) {
  if (at >= 0 && at < size) return at;
  switch (boundary) {
    case Boundary::kZero:
      return -1;
    case Boundary::kEdge:
      return at < 0 ? 0 : size - 1;
    case Boundary::kWrap:
      return (at % size + size) % size;
    case Boundary::kMirror: {
      const int64_t period = size > 1 ? 2 * size - 2 : 1, rest = (at % period + period) % period;
      return rest < size ? rest : period - rest;
    }
    default: {
      const int64_t period = 2 * size, rest = (at % period + period) % period;
      return rest < size ? rest : period - 1 - rest;
    }
  }
}

}  // namespace ek
