// What every binding needs: arrays of NumPy as tensors, names as values. Arrays are taken as they are: a
// wrong type or layout is refused, never converted.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "common/error.h"
#include "common/isa.h"
#include "common/parallel.h"
#include "common/tensor.h"
#include "hosts/arrays.h"
#include "hosts/memory.h"
#include "hosts/operators.h"

namespace ek {
namespace bind {

namespace py = pybind11;

enum class Use { kRead, kWrite };

// An array [N, C, D, H, W] or [N, C, H, W]. An array to write to must be writeable.
Tensor tensor(const char* name, const py::array& array, Use use);
// The same of a type that the caller has found.
Tensor tensor(const char* name, const py::array& array, Use use, Type type);

// The type of an array's elements; `label` is what the array is called.
Type type_of(const std::string& label, const py::array& array);

using hosts::boundary_of;
using hosts::boundary_of_padding;

// The instruction set called so; for an empty name that of this process: EDGEKIT_ISA if set, else the best
// one, decided at the first call.
Isa isa_of(const std::string& name);

Parallel threads_of(int threads);

// Runs a kernel, `there` on the GPU if `isa` is "cuda", else `here`. Other threads may use Python meanwhile.
template <class Args>
void run(void (*here)(const Args&, Isa, const Parallel&), void (*there)(const Args&), const Args& args,
         int threads, const std::string& isa) {
  const bool on_gpu = isa == "cuda";
  const Isa chosen = on_gpu ? Isa::kScalar : isa_of(isa);
  const Parallel parallel = threads_of(threads);
  py::gil_scoped_release unlocked;
  if (on_gpu) return there(args);
  here(args, chosen, parallel);
}

// Each adds its functions to the module.
void add_coordinates(py::module_& m);
void add_filter(py::module_& m);
void add_jacobian(py::module_& m);
void add_median(py::module_& m);
void add_nlm(py::module_& m);
void add_registration(py::module_& m);
void add_sample(py::module_& m);
void add_stencil(py::module_& m);
void add_window(py::module_& m);

}  // namespace bind
}  // namespace ek
