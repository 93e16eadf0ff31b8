// What an operator asks of a device, in the order of its stream: the driver does it, and a test on the
// processor.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ek {
namespace hosts {

// A kernel of entries.h, the struct it takes, and its rows and items.
struct Launch {
  const char* entry;
  const void* argument;
  size_t bytes;
  uint32_t rows, items;
};

class Device {
 public:
  virtual ~Device() = default;
  virtual void launch(const Launch& launch) = 0;
  // Sets `count` words of 32 bits.
  virtual void fill(void* to, uint32_t bits, int64_t count) = 0;
  virtual void copy(void* to, const void* from, int64_t bytes) = 0;
  // From memory of the processor, which has to last until the stream comes to it.
  virtual void upload(void* to, const void* from, int64_t bytes) = 0;
};

}  // namespace hosts
}  // namespace ek
