#include "common/simd_neon-inl.h"
// The vocabulary above decides what the body below is compiled for.
#include "guided/guided-inl.h"
