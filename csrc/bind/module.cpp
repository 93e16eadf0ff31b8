// edgekit._C: the kernels as Python functions over NumPy arrays. bind/ is the only folder that knows Python
// or reads the environment. All functions write to arrays they are given and release the GIL meanwhile.
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bind/bind.h"
#include "bind/gpu.h"

namespace {

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (ek::Isa isa : ek::available_isas()) names.emplace_back(ek::isa_name(isa));
  return names;
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of edgekit. Bad arguments raise ValueError; edgekit.kernels is the public face.";
  m.def("isas", &isas, "Instruction sets compiled in and supported here, from the plainest to the best.");
  m.def(
      "isa", [] { return ek::isa_name(ek::bind::isa_of("")); },
      "The instruction set in use (EDGEKIT_ISA forces one).");
  m.def("gpu_missing", &ek::gpu::missing, "Why no GPU can be used; empty if isa=\"cuda\" works.");
  ek::bind::add_coordinates(m);
  ek::bind::add_filter(m);
  ek::bind::add_jacobian(m);
  ek::bind::add_median(m);
  ek::bind::add_nlm(m);
  ek::bind::add_registration(m);
  ek::bind::add_sample(m);
  ek::bind::add_stencil(m);
  ek::bind::add_window(m);
}
