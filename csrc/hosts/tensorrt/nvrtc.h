// What NVRTC lacks, before all of the device code: integers of the standard library, as they are on the
// systems with a GPU (64-bit Linux), and what kernels call by the names of GCC. Its <cstdint> is an empty
// one.
#pragma once

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long int64_t;
typedef unsigned long uint64_t;

#define __builtin_memcpy memcpy
#define __builtin_rintf rintf
#define __builtin_floorf floorf
#define __builtin_floor floor
#define __builtin_sqrtf sqrtf
#define __builtin_fabsf fabsf
#define __builtin_nanf nanf
