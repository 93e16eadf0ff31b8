// What a sample outside the image is worth: how `abcd` goes on at both ends.
#pragma once

#include <cstdint>

namespace ek {

enum class Boundary : uint8_t {
  kZero,     // 000|abcd|000
  kEdge,     // aaa|abcd|ddd
  kMirror,   // dcb|abcd|cba
  kReflect,  // cba|abcd|dcb
  kWrap,     // bcd|abcd|abc
};

}  // namespace ek
