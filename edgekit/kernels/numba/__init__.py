"""The operators where the extension cannot be built: loops that Numba compiles when they are first called.

One file per family of operators, with a function for each that takes what a variant's ``run`` takes. The
mathematics is that of ``csrc``, in the same order of evaluation. Nothing here is imported before the first
call.
"""
