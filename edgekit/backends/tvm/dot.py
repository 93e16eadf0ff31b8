"""Products of bytes: four neighbouring ones at a time, a quad, summed exactly in 32 bits.

Nothing saturates: each way of multiplying is used only where its intermediate sums fit. It depends on the
processor (:func:`kinds`):

- ``dot``: an instruction sums a quad's products into 32 bits (x86: unsigned × signed; Arm: signed × signed).
- ``bytes``: x86's ``pmaddubsw`` sums two products in 16 bits, where several quads' sums may be added before
  they are widened. Weights for which that would overflow are taken out, and multiplied by themselves.
- ``words``: x86's ``pmaddwd`` sums two products of 16 bits in 32 bits.
- ``numbers``: each number by itself, widened from 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tvm import tirx

from edgekit.backends.tvm.loops import Buffer, Expr, Index, Kernel, Register, constant
from edgekit.backends.tvm.processor import Processor

# Numbers whose products are summed at once.
QUAD = 4
# Quads that may be summed in 16 bits.
DEPTHS = (4, 2, 1)
# What 16 bits hold.
_MOST_SUM = 32767
# Vectors of weights for a quad, further registers, and steps for the products of a quad of the input and a
# vector, and for the quad itself.
_WEIGHTS = {"dot": 1, "bytes": 1, "words": 2, "numbers": 4}
_SPARE = {"dot": 1, "bytes": 3, "words": 4, "numbers": 2}
_STEPS = {"dot": (1.0, 0.0), "bytes": (1.5, 0.0), "words": (2.0, 1.0), "numbers": (4.0, 1.0)}
# Instructions on x86, by the numbers of 32 bits in a vector.
_VPDPBUSD = {width: f"llvm.x86.avx512.vpdpbusd.{32 * width}" for width in (4, 8, 16)}
_PMADDUBSW = {
    4: "llvm.x86.ssse3.pmadd.ub.sw.128",
    8: "llvm.x86.avx2.pmadd.ub.sw",
    16: "llvm.x86.avx512.pmaddubs.w.512",
}
_PMADDWD = {
    4: "llvm.x86.sse2.pmadd.wd",
    8: "llvm.x86.avx2.pmadd.wd",
    16: "llvm.x86.avx512.pmaddw.d.512",
}
_SDOT = "llvm.aarch64.neon.sdot.v4i32.v16i8"


@dataclass(frozen=True)
class Way:
    """How bytes are multiplied.

    Attributes:
        kind: One of the module's.
        depth: Quads whose products are summed in 16 bits; more than 1 for ``bytes`` alone.
        rest: Quads of weights that are taken out, at most, for outputs that are computed together.
        most: The largest byte that is multiplied.
    """

    kind: str
    depth: int = 1
    rest: int = 0
    most: int = field(default=255, compare=False)

    @property
    def weights(self) -> int:
        """Vectors of weights for a quad."""
        return _WEIGHTS[self.kind]

    @property
    def weight_type(self) -> str:
        """Of the weights in memory."""
        return "int8" if self.kind in ("dot", "bytes") else "int16"

    @property
    def spare(self) -> int:
        """Registers beside those of sums and weights."""
        return _SPARE[self.kind]

    @property
    def steps(self) -> tuple[float, float]:
        """Instructions for the products of a quad and a vector of weights, and for the quad itself."""
        each, once = _STEPS[self.kind]
        # The sum of several quads is widened once.
        return (each if self.kind != "bytes" else 1 + 0.5 / self.depth), once


def byte_type(processor: Processor) -> str:
    """The type of the input's bytes that the processor multiplies with signed weights."""
    return "int8" if processor.arch == "aarch64" else "uint8"


def kinds(processor: Processor) -> tuple[str, ...]:
    """The ways to multiply that a processor has."""
    if processor.dot:
        return ("dot",)
    if processor.arch == "aarch64":
        return ("numbers",)
    # pmaddubsw is younger than the least x86-64.
    return ("bytes", "words") if processor.lanes >= 8 else ("words",)


def arranged(quads: NDArray[Any], way: Way) -> NDArray[Any]:
    """Weights of quads as they are multiplied.

    Args:
        quads: (…, 4, outputs).
        way: How.

    Returns:
        (…, 4 * outputs).
    """
    *outer, _, wide = quads.shape
    if way.kind == "words":
        # A number of 32 bits has the quad's even bytes as its halves, or its odd ones.
        quads = np.moveaxis(quads.reshape(*outer, 2, 2, wide), -3, -1)
    elif way.kind != "numbers":
        quads = quads.swapaxes(-2, -1)
    return np.ascontiguousarray(quads, way.weight_type).reshape(*outer, QUAD * wide)


def beside(vectors: NDArray[Any], way: Way) -> NDArray[Any]:
    """Weights of neighbours that fill a vector, as they are multiplied with :meth:`Products.side_by_side`.

    Args:
        vectors: (…, neighbours).
        way: How; not each number by itself.
    """
    if way.kind == "words":
        vectors = vectors.reshape(*vectors.shape[:-1], -1, 2).swapaxes(-2, -1).reshape(vectors.shape)
    return np.ascontiguousarray(vectors, way.weight_type)


def taken_out(quads: NDArray[np.int16], way: Way) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Weights whose products fit into 16 bits, and those that are taken out for that: a sum of two arrays.

    Args:
        quads: Of weights in the order in which they are summed, (quads, 4, outputs).
        way: How they are multiplied.

    Returns:
        Two arrays of the same shape.
    """
    if way.kind != "bytes":
        return quads, np.zeros_like(quads)
    depth = way.depth
    count, _, wide = quads.shape
    padded = np.pad(quads, ((0, -count % depth), (0, 0), (0, 0))).astype(np.int16)
    # What one number of 16 bits sums: neighbours of all quads.
    lanes = np.ascontiguousarray(padded.reshape(-1, depth, 2, 2, wide).transpose(0, 2, 4, 1, 3))
    kept, limit = lanes.reshape(-1, 2 * depth), _MOST_SUM // max(way.most, 1)
    for sign in (1, -1):
        (left,) = np.nonzero(np.maximum(sign * kept, 0).sum(1) > limit)
        while left.size:
            # One at a time, the largest first: it fits by itself.
            kept[left, (sign * kept[left]).argmax(1)] = 0
            left = left[np.maximum(sign * kept[left], 0).sum(1) > limit]
    back = kept.reshape(-1, 2, wide, depth, 2).transpose(0, 3, 1, 4, 2).reshape(-1, QUAD, wide)[:count]
    return back, quads - back


@dataclass(frozen=True)
class Products:
    """What multiplies in a kernel.

    Attributes:
        kernel: What is being written.
        processor: What it runs on.
        way: How bytes are multiplied.
        width: Sums in a register.
    """

    kernel: Kernel
    processor: Processor
    way: Way
    width: int

    def factors(self, buffer: Buffer, place: Sequence[Index], first: int, wide: int) -> list[Expr]:
        """The weights of a quad for some outputs, as :func:`arranged` puts them.

        Args:
            buffer: Weights.
            place: Of the quad.
            first: Output.
            wide: Outputs that lie together.
        """
        each = QUAD // self.way.weights
        starts = [(step * wide + first) * each for step in range(self.way.weights)]
        return [
            self.kernel.let(self.kernel.load(buffer, (*place, start), self.width * each)) for start in starts
        ]

    def repeated(self, load: Callable[[int, int], Expr]) -> list[Expr]:
        """A quad of the input, in every lane.

        Args:
            load: Reads bytes: from the first's number, how many.
        """
        width, let = self.width, self.kernel.let
        if self.way.kind == "numbers":
            return [let(tirx.Broadcast(load(i, 1).astype("int16"), width)) for i in range(QUAD)]
        return self.side_by_side(tirx.Broadcast(tirx.reinterpret("int32", load(0, QUAD)), width))

    def side_by_side(self, quads: Expr) -> list[Expr]:
        """A quad of the input for each lane.

        Args:
            quads: As a vector of as many numbers of 32 bits.
        """
        width, let = self.width, self.kernel.let
        if self.way.kind != "words":
            return [let(tirx.reinterpret(f"int8x{4 * width}", quads))]
        pairs = let(tirx.reinterpret(f"uint16x{2 * width}", quads))
        halves = (
            pairs & constant(255, 2 * width, "uint16"),
            pairs >> constant(8, 2 * width, "uint16"),
        )
        return [let(tirx.reinterpret(f"int16x{2 * width}", half)) for half in halves]

    def add(self, total: Register, values: Sequence[list[Expr]], factors: Sequence[list[Expr]]) -> None:
        """Add the products of quads to a sum.

        Args:
            total: The sums.
            values: Of each quad, as :meth:`repeated` gives it; at most so many quads as the way is deep.
            factors: Of each quad.
        """
        width, kind = self.width, self.way.kind
        if kind == "bytes":
            short = None
            for (value,), (factor,) in zip(values, factors, strict=True):
                pairs = tirx.call_llvm_pure_intrin(f"int16x{2 * width}", _PMADDUBSW[width], value, factor)
                short = pairs if short is None else short + pairs
            wide = _intrinsic(_PMADDWD[width], width, short, constant(1, 2 * width, "int16"))
            total.set(_kept(total.value, width) + wide)
            return
        for value, factor in zip(values, factors, strict=True):
            for one, other in zip(value, factor, strict=True):
                total.set(self._sum(total.value, one, other))

    def _sum(self, total: Expr, value: Expr, factor: Expr) -> Expr:
        """The sum with some more products."""
        width = self.width
        if self.way.kind == "numbers":
            wide = f"int32x{width}"
            return total + value.astype(wide) * factor.astype(wide)
        if self.way.kind == "words":
            return _kept(total, width) + _intrinsic(_PMADDWD[width], width, value, factor)
        dot = _SDOT if self.processor.arch == "aarch64" else _VPDPBUSD[width]
        return _intrinsic(dot, width, total, value, factor)


def _intrinsic(name: str, width: int, *operands: Expr) -> Expr:
    return tirx.call_llvm_pure_intrin(f"int32x{width}", name, *operands)


def _kept(total: Expr, width: int) -> Expr:
    """The sum so far; LLVM may not add the next products to each other first, for want of registers."""
    floats = tirx.reinterpret(f"float32x{width}", total)
    fenced = tirx.call_llvm_pure_intrin(f"float32x{width}", "llvm.arithmetic.fence", floats)
    return tirx.reinterpret(f"int32x{width}", fenced)
