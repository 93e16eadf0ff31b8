// Words the language lacks: host-and-device functions, and helpers that must never become a linker symbol.
#pragma once

#if defined(__CUDACC__)
#define EK_HD __host__ __device__
#else
#define EK_HD
#endif

// A helper compiled under -mavx2 must not be merged by the linker with its baseline twin: helpers of per-ISA
// files are therefore always inlined, have internal linkage, and live in a namespace per instruction set.
#define EK_INLINE EK_HD static inline __attribute__((always_inline))
#define EK_MEMBER EK_HD inline __attribute__((always_inline))
#define EK_RESTRICT __restrict__

// Before a loop that a device does not unroll: what all its turns load at once would fill the registers.
#if defined(__CUDA_ARCH__)
#define EK_NO_UNROLL _Pragma("unroll 1")
#else
#define EK_NO_UNROLL
#endif

// Before a loop of up to four turns whose vectors are to stay in registers. A device decides for itself.
#if defined(__CUDACC__)
#define EK_UNROLL
#elif defined(__clang__)
#define EK_UNROLL _Pragma("unroll")
#else
#define EK_UNROLL _Pragma("GCC unroll 4")
#endif
