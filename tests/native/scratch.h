// Workspace of a kernel, of exactly the bytes it asked for: a sanitizer sees every access beside it.
#pragma once

#include <cstring>
#include <new>

#include "common/workers.h"

namespace test {

class Scratch {
 public:
  Scratch(int workers, int64_t bytes)
      : bytes_(static_cast<size_t>(workers * bytes)),
        workers_(workers),
        data_(::operator new(bytes_, kAlign)) {
    std::memset(data_, 0xff, bytes_);  // NaNs: what is read before it is written shows
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { ::operator delete(data_, kAlign); }

  ek::Workspace workspace() const { return {data_, workers_}; }

 private:
  static constexpr std::align_val_t kAlign{ek::kWorkspaceAlign};
  size_t bytes_;
  int workers_;
  void* data_;
};

}  // namespace test
