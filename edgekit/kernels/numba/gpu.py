"""The core operators on a GPU, for machines where the extension was built without CUDA.

A thread computes one voxel: it locates and fetches a block of one voxel, by the functions that the variants
for processors are made of, which Numba compiles for the device here. Arrays are copied to the GPU and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numba import config, cuda, types
from numba.extending import overload

from edgekit.kernels.numba.block import Block, Plan, locate, plan_of
from edgekit.kernels.numba.fetch import fetch
from edgekit.kernels.numba.jacobian import determinant_at, ends
from edgekit.kernels.numba.jit import memory_of
from edgekit.kernels.numba.mathematics import ZERO, widen
from edgekit.registry import Requirement
from edgekit.spec import Array

# Numba's own target is deprecated and ends at CUDA 12.4; this package takes its place when it is installed.
_TARGET = Requirement("numba_cuda", "numba-cuda", "numba-cuda", "0.30")

_THREADS_PER_BLOCK = 128

# What Numba lacks for devices.
overload(np.floor, target="cuda", strict=False)(lambda value: lambda value: math.floor(value))  # noqa: PLW0108
overload(np.rint, target="cuda", strict=False)(lambda value: lambda value: cuda.libdevice.rintf(value))  # noqa: PLW0108


def missing() -> str:
    """Why operators cannot be compiled for a GPU here; empty if they can, or if Numba simulates one."""
    if not cuda.is_available():
        return "no GPU that Numba can use"
    reason = "" if config.ENABLE_CUDASIM else _TARGET.missing()
    return f"{reason}: {_TARGET.install_line}" if reason else ""


def warp(
    image: Array,
    flow: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    order: int,
    boundary: str,
    add: bool = False,
) -> None:
    """The variant of :func:`edgekit.kernels.warp`."""
    del threads
    out = memory_of(outputs[0])
    target = cuda.device_array(out.size, out.dtype)
    plan = plan_of(image, outputs[0], order, boundary, add=add)
    sources = (cuda.to_device(memory_of(array)) for array in (image, flow))
    _launch(_sample_voxels, flow.size // plan.dims, *sources, target, plan)
    target.copy_to_host(out)


def compose(first: Array, second: Array, *, outputs: Sequence[Array], threads: int, boundary: str) -> None:
    """The variant of :func:`edgekit.kernels.compose`."""
    warp(second, first, outputs=outputs, threads=threads, order=1, boundary=boundary, add=True)


def integrate(
    velocity: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    steps: int,
    boundary: str,
    workspace: Array | None = None,
) -> None:
    """The variant of :func:`edgekit.kernels.integrate_velocity`; the fields between stay on the GPU."""
    del threads, workspace
    (out,) = outputs
    np.multiply(velocity, np.float32(2.0**-steps), out=out)
    field = cuda.to_device(memory_of(out))
    following = cuda.device_array(out.size, out.dtype)
    plan = plan_of(velocity, out, 1, boundary, add=True)
    for _ in range(steps):
        _launch(_sample_voxels, out.size // plan.dims, field, field, following, plan)
        field, following = following, field
    field.copy_to_host(memory_of(out))


def determinant(
    flow: Array,
    *,
    outputs: Sequence[Array],
    threads: int,
    return_folding: bool = False,
    return_determinant: bool = True,
) -> None:
    """The variant of :func:`edgekit.kernels.jacobian_determinant`."""
    del threads
    n, dims = flow.shape[:2]
    grid = (1, *flow.shape[2:])[-3:]
    voxels = flow.size // dims
    target = cuda.device_array(voxels if return_determinant else 0, np.float32)
    folds = cuda.to_device(np.zeros(n, np.int64))
    _launch(_determinants, voxels, cuda.to_device(memory_of(flow)), dims, grid, target, folds)
    if return_determinant:
        target.copy_to_host(memory_of(outputs[0]))
    if return_folding:
        folds.copy_to_host(outputs[-1])


def _launch(kernel: Any, voxels: int, *arguments: Any) -> None:
    """Start a thread per voxel, and some that find nothing to do."""
    kernel[-(-voxels // _THREADS_PER_BLOCK), _THREADS_PER_BLOCK](*arguments)


def _kernel(function: Callable[..., None]) -> Any:
    return cuda.jit(function)


@_kernel
def _sample_voxels(image: Any, flow: Any, out: Any, plan: Plan) -> None:
    thread = cuda.grid(1)
    if thread >= len(flow) // plan.dims:
        return
    _, height, width = plan.out.size
    voxels = plan.out.size[0] * height * width
    n, voxel = thread // voxels, thread % voxels
    block = Block(
        cuda.local.array((3, 1), types.float32),
        cuda.local.array((3, 1), types.int32),
        cuda.local.array((3, 1), types.int32),
        cuda.local.array((3, 1), types.float32),
        cuda.local.array(1, types.float32),
    )
    # What belongs to z is 0 in a plane.
    block.first[0, 0], block.weight[0, 0] = 0, ZERO
    block.whole[0, 0] = voxel // (height * width)
    block.whole[1, 0] = voxel // width % height
    block.whole[2, 0] = voxel % width
    for axis in range(3 - plan.dims, 3):
        component = n * plan.dims + axis - (3 - plan.dims)
        block.shift[axis, 0] = widen(flow[np.uint64(component * voxels + voxel)])
    locate(1, plan, block)
    fetch(image, n * plan.image.batch, 1, plan, block, out, n * plan.out.batch + voxel * plan.out.step[2])


@_kernel
def _determinants(flow: Any, dims: int, grid: tuple[int, int, int], out: Any, folds: Any) -> None:
    """Determinants, if ``out`` is not empty, and how many of each sample are not positive."""
    thread = cuda.grid(1)
    if thread >= len(flow) // dims:
        return
    depth, height, width = grid
    voxels = depth * height * width
    n, voxel = thread // voxels, thread % voxels
    along_z = ends(voxel // (height * width), depth, height * width)
    along_y = ends(voxel // width % height, height, width)
    along_x = ends(voxel % width, width, 1)
    value = determinant_at(flow, n * dims * voxels + voxel, voxels, dims, along_z, along_y, along_x)
    if not value > ZERO:
        cuda.atomic.add(folds, n, 1)
    if len(out):
        out[thread] = value
