"""Operators that take noise away from an image and keep what it shows; see :mod:`edgekit.kernels`."""
