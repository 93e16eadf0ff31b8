#include "common/simd_scalar-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "total_variation/total_variation-inl.h"
