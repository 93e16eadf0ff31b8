// Which instruction set runs: what is compiled in, what this processor has, what a name means.
#pragma once

#include <string>
#include <vector>

#if defined(__x86_64__)
#define EK_X86 1
#elif defined(__aarch64__)
#define EK_ARM64 1
#endif

namespace ek {

enum class Isa { kScalar, kAvx2, kAvx512, kNeon };

const char* isa_name(Isa isa);

// Compiled in and supported by this processor, from the plainest to the best.
const std::vector<Isa>& available_isas();

// The best available one for an empty name, else the one so called. Throws Error if unknown or unavailable.
Isa choose_isa(const std::string& name);

}  // namespace ek
