#include "common/isa.h"

#include "common/error.h"

namespace ek {
namespace {

std::vector<Isa> detect() {
  std::vector<Isa> found{Isa::kScalar};
#if EK_X86
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
  if (avx2) found.push_back(Isa::kAvx2);
  if (avx2 && avx512) found.push_back(Isa::kAvx512);
#elif EK_ARM64
  found.push_back(Isa::kNeon);  // part of every AArch64 processor
#endif
  return found;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kScalar:
      return "scalar";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kNeon:
      return "neon";
  }
  return "";
}

const std::vector<Isa>& available_isas() {
  static const std::vector<Isa> isas = detect();
  return isas;
}

Isa choose_isa(const std::string& name) {
  const std::vector<Isa>& isas = available_isas();
  if (name.empty()) return isas.back();
  std::string known;
  for (Isa isa : isas) {
    if (name == isa_name(isa)) return isa;
    known += std::string(known.empty() ? "" : ", ") + isa_name(isa);
  }
  throw Error("instruction set '" + name + "' is unknown or missing on this processor: want one of " + known);
}

}  // namespace ek
