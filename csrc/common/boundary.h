// What a sample outside the image is worth.
#pragma once

namespace ek {

enum class Boundary {
  kZero,  // every corner outside the image counts as 0
  kEdge,  // the coordinate is clamped to the image
};

}  // namespace ek
