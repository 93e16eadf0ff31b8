"""The table of cases that every host runs, each against the reference of its operator.

A case is a model of one node and a list of feeds for it; where the lengths of its axes vary, the feeds do.
Nothing here imports a runtime: the emulated machine reads this file too.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.graph import opset
from edgekit.kernels.interpolation import BOUNDARIES

Array = np.ndarray[Any, Any]

# Largest error as a share of the largest value, at least 1.
TOLERANCE = {"float32": 2e-6, "float16": 1.5e-3}
# A patch's weight and a derivative amplify rounding.
LOOSER = {"NonLocalMeans": 5.0, "Bilateral": 3.0, "JacobianDeterminant": 3.0}


@dataclass(frozen=True)
class HostCase:
    """One node, and what it is fed.

    Attributes:
        label: Names the case.
        operator: ``op_type``.
        feeds: One tuple of inputs for each run of one session.
        attributes: Of the node.
        dynamic: Whether the model leaves the lengths of all axes open but the channels'.
    """

    label: str
    operator: str
    feeds: tuple[tuple[Array, ...], ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    dynamic: bool = False

    @property
    def dtype(self) -> str:
        return self.feeds[0][0].dtype.name

    def expected(self) -> list[Array]:
        """What the reference makes of each feed."""
        operator = opset.OPERATORS[self.operator]
        return [operator.reference(*feed, **self.attributes) for feed in self.feeds]

    def check(self, got: Array, expected: Array) -> None:
        """Fail unless a host's result is the reference's, but for rounding, with NaNs in the same places."""
        assert got.dtype == expected.dtype and got.shape == expected.shape
        assert np.array_equal(np.isnan(got), np.isnan(expected)), self.label
        wide = np.nan_to_num(expected.astype(np.float64))
        error = np.abs(np.nan_to_num(got.astype(np.float64)) - wide).max(initial=0.0)
        limit = (
            TOLERANCE[self.dtype] * LOOSER.get(self.operator, 1.0) * max(1.0, np.abs(wide).max(initial=0.0))
        )
        assert error <= limit, f"{self.label}: {error:.3g} > {limit:.3g}"

    def model(self) -> bytes:
        """The model as ONNX."""
        from onnx import TensorProto, helper

        operator = opset.OPERATORS[self.operator]
        kind = TensorProto.FLOAT if self.dtype == "float32" else TensorProto.FLOAT16
        names = list(operator.inputs)
        shapes: list[list[int | str]] = [list(array.shape) for array in self.feeds[0]]
        if self.dynamic:
            shapes = [
                [length if _is_channel(operator.name, i, axis) else f"{names[i]}_{axis}"
                 for axis, length in enumerate(shape)]
                for i, shape in enumerate(shapes)
            ]  # fmt: skip
        node = helper.make_node(self.operator, names, ["out"], "node", domain=opset.DOMAIN, **self.attributes)
        rank = self.expected_rank
        out = helper.make_tensor_value_info("out", kind, [f"out_{axis}" for axis in range(rank)])
        inputs = [helper.make_tensor_value_info(n, kind, s) for n, s in zip(names, shapes, strict=True)]
        graph = helper.make_graph([node], "case", inputs, [out])
        imports = [helper.make_opsetid("", 20), helper.make_opsetid(opset.DOMAIN, opset.VERSION)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()

    @property
    def expected_rank(self) -> int:
        """How many axes the result has."""
        return len(opset.OPERATORS[self.operator].shape(*(array.shape for array in self.feeds[0])))


def _is_channel(operator: str, index: int, axis: int) -> bool:
    if operator == "GridSample3d" and index == 1:
        return axis == 4
    return axis == 1


def cases() -> Iterator[HostCase]:
    """All of them, the same every time."""
    rng = np.random.default_rng(20261127)
    yield from _warps(rng)
    yield from _fields(rng)
    yield from _grids(rng)
    yield from _determinants(rng)
    yield from _filters(rng)


# Odd sizes, one-voxel axes, widths around the vectors; volumes and images; several channels and batches.
_SIZES = (
    (1, 1, 5, 6, 17),
    (2, 3, 3, 4, 33),
    (1, 4, 7, 1, 16),
    (1, 2, 1, 1, 1),
    (1, 1, 23, 9, 15),
    (2, 1, 9, 31),
    (1, 3, 1, 8),
)


def _warps(rng: np.random.Generator) -> Iterator[HostCase]:
    turns = itertools.cycle(itertools.product((1, 0, 3), BOUNDARIES))
    for size, dtype, kind in itertools.product(_SIZES, ("float32", "float16"), ("near", "huge", "NaN")):
        order, boundary = next(turns)
        axes = len(size) - 2
        image = rng.standard_normal(size).astype(dtype)
        flow = (2 * rng.standard_normal((size[0], axes, *size[2:]))).astype(dtype)
        if order == 0:
            flow = (np.rint(4 * flow) / 4 + 0.125).astype(dtype)  # away from ties, which rounding decides
        if kind == "huge":
            flow = np.clip(1e4 * flow.astype(np.float32), -6e4, 6e4).astype(dtype)
        if kind == "NaN":
            flow.reshape(-1)[:: max(1, flow.size // 5)] = np.nan
        label = f"Warp {size} {dtype} {kind} order {order} {boundary}"
        yield HostCase(label, "Warp", ((image, flow),), {"order": order, "boundary": boundary})
    yield HostCase("Warp with the defaults", "Warp", (_warp_feed(rng, (1, 2, 4, 5, 19)),))
    feeds = tuple(_warp_feed(rng, size) for size in ((1, 2, 4, 5, 19), (2, 2, 1, 7, 8), (1, 2, 9, 3, 33)))
    yield HostCase("Warp of varying lengths", "Warp", feeds, {}, dynamic=True)


def _warp_feed(rng: np.random.Generator, size: tuple[int, ...]) -> tuple[Array, ...]:
    flow = rng.standard_normal((size[0], len(size) - 2, *size[2:]))
    return rng.standard_normal(size).astype(np.float32), flow.astype(np.float32)


def smooth(rng: np.random.Generator, size: tuple[int, ...], dtype: str) -> Array:
    """A field that bends gently: integration stretches the rounding errors of any other."""
    phase = rng.uniform(0, 2 * np.pi, (*size[:2], *(1 for _ in size[2:])))
    wave = sum(0.35 * axis for axis in np.indices(size[2:]))
    return (1.5 * np.sin(wave + phase)).astype(dtype)


def _fields(rng: np.random.Generator) -> Iterator[HostCase]:
    turns = itertools.cycle(BOUNDARIES)
    for size, dtype in itertools.product(
        ((1, 3, 5, 6, 17), (2, 3, 4, 1, 9), (1, 2, 9, 33)), ("float32", "float16")
    ):
        boundary = next(turns)
        first, second = smooth(rng, size, dtype), smooth(rng, size, dtype)
        yield HostCase(
            f"Compose {size} {dtype} {boundary}", "Compose", ((first, second),), {"boundary": boundary}
        )
        for steps in (0, 1, 2, 7):
            options = {"steps": steps, "boundary": boundary}
            label = f"IntegrateVelocity {size} {dtype} {steps} {boundary}"
            yield HostCase(label, "IntegrateVelocity", ((first,),), options)
    feeds = tuple((smooth(rng, (1, 3, d, 5, 9), "float32"),) for d in (4, 1, 6))
    yield HostCase(
        "IntegrateVelocity of varying lengths", "IntegrateVelocity", feeds, {"steps": 3}, dynamic=True
    )


def _grids(rng: np.random.Generator) -> Iterator[HostCase]:
    modes = ("linear", "nearest", "cubic")
    paddings = ("zeros", "border", "reflection")
    for mode, padding, corners in itertools.product(modes, paddings, (0, 1)):
        for dtype in ("float32", "float16"):
            image = rng.standard_normal((2, 3, 5, 6, 7)).astype(dtype)
            grid = rng.uniform(-1.4, 1.4, (2, 3, 4, 17, 3)).astype(dtype)
            options = {"mode": mode, "padding_mode": padding, "align_corners": corners}
            yield HostCase(
                f"GridSample3d {mode} {padding} {corners} {dtype}", "GridSample3d", ((image, grid),), options
            )
    feeds = tuple(
        (rng.standard_normal((n, 1, 4, 5, 6)).astype("f4"), rng.uniform(-1, 1, (n, d, 3, 9, 3)).astype("f4"))
        for n, d in ((1, 2), (2, 5))
    )
    yield HostCase("GridSample3d of varying lengths", "GridSample3d", feeds, {}, dynamic=True)


def _determinants(rng: np.random.Generator) -> Iterator[HostCase]:
    for size, dtype in itertools.product(
        ((1, 3, 5, 6, 17), (2, 3, 4, 1, 9), (2, 2, 9, 33)), ("float32", "float16")
    ):
        yield HostCase(
            f"JacobianDeterminant {size} {dtype}", "JacobianDeterminant", ((smooth(rng, size, dtype),),)
        )


def _filters(rng: np.random.Generator) -> Iterator[HostCase]:
    for size, dtype in itertools.product(((1, 2, 19, 33), (1, 1, 6, 7, 18)), ("float32", "float16")):
        image = (3 * rng.standard_normal(size)).astype(dtype)
        for method, boundary in (("pointwise", "mirror"), ("blockwise", "edge")):
            options: dict[str, Any] = {
                "sigma": 1.0,
                "search_radius": 2,
                "method": method,
                "boundary": boundary,
            }
            yield HostCase(f"NonLocalMeans {size} {dtype} {method}", "NonLocalMeans", ((image,),), options)
        options = {"sigma_space": 1.5, "sigma_range": 2.0, "radius": 2, "boundary": "zero"}
        yield HostCase(f"Bilateral {size} {dtype}", "Bilateral", ((image,),), options)
