// One lane, as a CUDA thread has it: the vocabulary and the bodies of the scalar variant, word for word, with
// blocks of one voxel. They are in a namespace of their own, because a host compiler compiles them too: the
// native tests run them as the device does.
#pragma once

#define EK_DEVICE 1
#define EK_ISA device

#include "common/simd_scalar-inl.h"
