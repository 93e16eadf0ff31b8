// The body of a kernel, compiled once per instruction set: how it is declared, and how one is chosen.
#pragma once

#include <cstdint>

// Declares `void name(const void* context, int64_t begin, int64_t end)` in the namespace of every set.
#define EK_DECLARE_BODIES(name)                               \
  namespace scalar {                                          \
  void name(const void* context, int64_t begin, int64_t end); \
  }                                                           \
  namespace avx2 {                                            \
  void name(const void* context, int64_t begin, int64_t end); \
  }                                                           \
  namespace avx512 {                                          \
  void name(const void* context, int64_t begin, int64_t end); \
  }                                                           \
  namespace neon {                                            \
  void name(const void* context, int64_t begin, int64_t end); \
  }

// The one for an instruction set (an ek::Isa) that is compiled in.
#if defined(__x86_64__)
#define EK_CHOOSE_BODY(isa, name) \
  ((isa) == ek::Isa::kAvx512 ? ek::avx512::name : (isa) == ek::Isa::kAvx2 ? ek::avx2::name : ek::scalar::name)
#elif defined(__aarch64__)
#define EK_CHOOSE_BODY(isa, name) ((isa) == ek::Isa::kNeon ? ek::neon::name : ek::scalar::name)
#else
#define EK_CHOOSE_BODY(isa, name) (ek::scalar::name)
#endif
