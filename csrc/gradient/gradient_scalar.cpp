#include "common/simd_scalar-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "gradient/gradient-inl.h"
