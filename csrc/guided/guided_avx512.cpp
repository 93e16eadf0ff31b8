#include "common/simd_avx512-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "guided/guided-inl.h"
