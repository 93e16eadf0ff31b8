"""Which kernels there are: for each operation of a network, who computes it and what it wants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekit.backends.tvm import (
    concatenation,
    convolution,
    depthwise,
    integer_convolution,
    matmul,
    narrow,
    narrow_integer,
    normalization,
    patterns,
    pooling,
    quantization,
    relayout,
    resize,
    softmax,
)
from edgekit.backends.tvm.elementwise import Output, elementwise
from edgekit.backends.tvm.graph import Node
from edgekit.backends.tvm.integer_convolution import IntegerConvolution
from edgekit.backends.tvm.loops import Function
from edgekit.backends.tvm.matmul import Matmul
from edgekit.backends.tvm.normalization import Normalization, RowNormalization
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Halo, Tensor
from edgekit.backends.tvm.tiles import Convolution, convolution_problem

Arrays = list[NDArray[Any]]


class Family:
    """A kind of kernel; what is written here is what most of them answer.

    Attributes:
        blocked: Whether its result's channels lie in blocks: always, never, or (``None``) as its inputs' do.
    """

    blocked: bool | None = None

    @property
    def reads_blocks(self) -> bool | None:
        """Whether the channels of its inputs lie in blocks; like the result's, if nothing else is said."""
        return self.blocked

    def takes(self, node: Node) -> bool:
        """Whether it computes on numbers of this type: float32, if nothing else is said."""
        return all(value.dtype == "float32" for value in [*node.inputs, node.output])

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """What a node asks for, as something hashable; ``None`` where the family does not do it."""
        raise AssertionError(node.operator)

    def dequantizes(self, problem: Any) -> bool:
        """Whether its kernel reads bytes where numbers are asked for, and dequantizes them on the way."""
        return False

    def reads(self, node: Node) -> int:
        """How many of the node's inputs, the first ones, its kernel reads as they flow."""
        return 1

    def block(self, problem: Any, channels: int, processor: Processor) -> int:
        """How many of an input's channels lie side by side, where they lie in blocks."""
        return processor.block_for(channels)

    def halo(self, problem: Any, node: Node) -> Halo:
        """Zeros that it wants around its inputs' spatial axes."""
        return ()

    def fill(self, problem: Any) -> int:
        """The number that stands for zero there."""
        return 0

    def constants(
        self, problem: Any, node: Node, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Arrays:
        """Arrays that its kernel reads after the inputs: weights and tables, in the kernel's order."""
        return []

    def kernel(
        self, name: str, problem: Any, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """The function: it takes the inputs, the constants, the output's extras and the output."""
        raise AssertionError(name)


class Chains(Family):
    """A chain by itself, which stands for no node; an empty one copies."""

    def kernel(
        self, name: str, problem: Any, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """A loop over the result."""
        if relayout.takes(inputs[0], output.tensor):
            return relayout.relayout(name, inputs[0], output)
        return elementwise(name, inputs[0], output, processor)


class Convolutions(Family):
    """Convolutions and transposed ones, with known weights, from blocks to blocks."""

    blocked: bool | None = True

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The convolution, where a block of outputs belongs to one group."""
        problem, x, result = _convolution(node, processor)
        if problem is None or result.layout.block == 1:
            return None
        inputs, outputs = x.shape[1] // problem.groups, result.shape[1] // problem.groups
        mixed = inputs % x.layout.block or outputs % result.layout.block
        return None if problem.groups > 1 and mixed else problem

    def halo(self, problem: Convolution, node: Node) -> Halo:
        """What padding and dilation reach."""
        return problem.halo(node.inputs[0].lengths[2:], node.output.lengths[2:])

    def constants(
        self, problem: Convolution, node: Node, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Arrays:
        """The weights."""
        plan = convolution.tiling(problem, inputs[0], output.tensor, processor)
        return [convolution.packed(problem, _weights(node), inputs[0], output.tensor, plan.vectors)]

    def kernel(
        self, name: str, problem: Convolution, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """Tiles by the rule."""
        plan = convolution.tiling(problem, inputs[0], output.tensor, processor)
        return convolution.convolution(name, problem, inputs[0], output, plan)


class DepthwiseConvolutions(Convolutions):
    """Convolutions of each channel by itself."""

    def dequantizes(self, problem: Any) -> bool:
        """A vector that is read serves several taps."""
        return True

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The convolution, if it is one."""
        problem, x, result = _convolution(node, processor)
        return problem if problem and depthwise.takes(problem, x, result) else None

    def constants(
        self, problem: Convolution, node: Node, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Arrays:
        """The weights."""
        return [depthwise.weights(problem, _weights(node), inputs[0], output.tensor)]

    def kernel(
        self, name: str, problem: Convolution, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """Tiles of places."""
        return depthwise.depthwise(name, problem, inputs[0], output, processor)


class NarrowConvolutions(Convolutions):
    """Convolutions to few channels."""

    blocked: bool | None = False

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The convolution, if it is one."""
        problem, x, result = _convolution(node, processor)
        return problem if problem and narrow.takes(problem, x, result) else None

    def constants(
        self, problem: Convolution, node: Node, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Arrays:
        """The weights."""
        return [narrow.weights(problem, _weights(node), inputs[0], output.tensor)]

    def kernel(
        self, name: str, problem: Convolution, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """Vectors along the input's channels, or along rows."""
        return narrow.narrow(name, problem, inputs[0], output, processor)


class IntegerConvolutions(Family):
    """Convolutions of bytes, from blocks to blocks."""

    blocked: bool | None = True

    @property
    def reads_blocks(self) -> bool | None:
        """Four channels side by side are multiplied at once."""
        return True

    def takes(self, node: Node) -> bool:
        """Bytes to float32."""
        return True

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The convolution, where the result's channels lie as this family writes them."""
        convolution, x, result = quantization.asked(node, processor)
        if (result.layout.block > 1) != self.blocked:
            return None
        most = node.attributes["most"]
        way = integer_convolution.way_of(_weights(node), convolution, x, result, processor, most)
        return IntegerConvolution(convolution, node.attributes["zero_point"], way, x.layout.block)

    def block(self, problem: IntegerConvolution, channels: int, processor: Processor) -> int:
        """As the problem says."""
        return problem.block

    def halo(self, problem: IntegerConvolution, node: Node) -> Halo:
        """What padding and dilation reach, and whole quads."""
        return problem.halo(node.inputs[0].lengths[2:], node.output.lengths[2:])

    def fill(self, problem: IntegerConvolution) -> int:
        """The zero point."""
        return problem.zero_point

    def constants(
        self,
        problem: IntegerConvolution,
        node: Node,
        inputs: Sequence[Tensor],
        output: Output,
        processor: Processor,
    ) -> Arrays:
        """Weights, what the sums begin with, and their scales."""
        x, result = inputs[0], output.tensor
        vectors = integer_convolution.tiling(problem, x, result, processor).vectors
        constants = integer_convolution.Arranged.of(problem, _weights(node), x, result, vectors)
        begin = constants.begin.copy()
        # Every phase adds it once.
        begin.reshape(len(begin), -1)[:, : result.shape[1]] += node.attributes["bias"]
        scales = np.zeros(begin.shape[1:], np.float32)
        scales.reshape(-1)[: result.shape[1]] = node.attributes["scales"]
        return [constants.weights, constants.distances, begin, scales, *constants.rest]

    def kernel(
        self,
        name: str,
        problem: IntegerConvolution,
        inputs: Sequence[Tensor],
        output: Output,
        processor: Processor,
    ) -> Function:
        """Tiles by the rule."""
        plan = integer_convolution.tiling(problem, inputs[0], output.tensor, processor)
        return integer_convolution.integer_convolution(name, problem, inputs[0], output, plan, processor)


class FewIntegerConvolutions(IntegerConvolutions):
    """Convolutions of bytes to few channels, which lie one after the other."""

    blocked: bool | None = False


class NarrowIntegerConvolutions(FewIntegerConvolutions):
    """Those whose vectors run along the input."""

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The convolution, if it is one."""
        convolution, plain, result = quantization.asked(node, processor)
        x = narrow_integer.in_blocks(plain)
        if not narrow_integer.takes(convolution, x, result, processor):
            return None
        most = node.attributes["most"]
        way = narrow_integer.way_of(_weights(node), convolution, x, result, processor, most)
        return IntegerConvolution(convolution, node.attributes["zero_point"], way, x.layout.block)

    def constants(
        self,
        problem: IntegerConvolution,
        node: Node,
        inputs: Sequence[Tensor],
        output: Output,
        processor: Processor,
    ) -> Arrays:
        """Weights, distances, what the sums begin with, and their scales."""
        weights, distances, begin = narrow_integer.arranged(
            problem, _weights(node), inputs[0], output.tensor, processor
        )
        scales = np.ascontiguousarray(node.attributes["scales"], np.float32)
        return [weights, distances, begin + node.attributes["bias"], scales]

    def kernel(
        self,
        name: str,
        problem: IntegerConvolution,
        inputs: Sequence[Tensor],
        output: Output,
        processor: Processor,
    ) -> Function:
        """Vectors of neighbouring places."""
        return narrow_integer.narrow_integer(name, problem, inputs[0], output, processor)


class Choices(Family):
    """What gives some of its inputs' numbers in other places, and gives those of bytes as well."""

    def takes(self, node: Node) -> bool:
        """Of one type, which may be one of bytes where the problem is a choice."""
        return len({value.dtype for value in [*node.inputs, node.output]}) == 1

    def dequantizes(self, problem: Any) -> bool:
        """Each vector where it is read."""
        return True


class Pools(Choices):
    """Windows, bins and whole channels."""

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The window."""
        return pooling.pooling_problem(node.call)

    def kernel(
        self, name: str, problem: Any, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """Columns of windows."""
        return pooling.pooling(name, problem, inputs[0], output, processor)


class Resizes(Choices):
    """Nearest, linear and cubic resampling."""

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The method."""
        return resize.resize_problem(node.call)

    def constants(
        self, problem: Any, node: Node, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Arrays:
        """Where each output lies."""
        return resize.tables(problem, inputs[0].shape[2:], output.tensor.shape[2:])

    def kernel(
        self, name: str, problem: Any, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """Rows, then along the row."""
        return resize.resize(name, problem, inputs[0], output, processor)


class Copies(Choices):
    """Concatenations, slices and paddings."""

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The boxes."""
        shape = node.output.shape
        many = shape is not None and len(shape) > 2
        problem = concatenation.copy_problem(node.call, node.attributes.get("part", 0)) if many else None
        return (
            replace(problem, value=node.attributes["fill"])
            if problem and "fill" in node.attributes
            else problem
        )

    def reads(self, node: Node) -> int:
        """All."""
        return len(node.inputs)

    def kernel(
        self, name: str, problem: Any, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """Box by box."""
        return concatenation.copy(name, problem, inputs, output, processor)


class Normalizations(Family):
    """Instance and group normalisation: over all places of each group of channels."""

    def dequantizes(self, problem: Any) -> bool:
        """Each vector where it is read."""
        return True

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The groups."""
        shape = node.output.lengths
        axes, groups = node.attributes["axes"], node.attributes["groups"] or shape[1]
        spatial = len(shape) > 2 and axes == tuple(range(2, len(shape)))
        return Normalization(groups, node.attributes["epsilon"]) if spatial else None

    def kernel(
        self, name: str, problem: Any, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """Statistics, then the values."""
        return normalization.normalization(name, problem, inputs[0], output, processor)


class RowNormalizations(Normalizations):
    """Layer normalisation: over the last axis."""

    blocked: bool | None = False

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The last axis."""
        shape = node.output.lengths
        last = node.attributes["axes"] == (len(shape) - 1,)
        return RowNormalization(node.attributes["epsilon"]) if last else None


class DenseLayers(Family):
    """Products with a known matrix."""

    blocked: bool | None = False

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The axes of both."""
        known = node.inputs[1].constant
        return matmul.matmul_problem(node.call) if known is not None and known.ndim == 2 else None

    def constants(
        self, problem: Any, node: Node, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Arrays:
        """The matrix in panels."""
        values = _weights(node)
        plan = matmul.tiling(problem, inputs[0], Tensor(tuple(values.shape)), processor, "dense")
        return [matmul.weights(values, plan)]

    def kernel(
        self, name: str, problem: Any, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """Tiles by the rule."""
        known = Tensor((inputs[0].shape[problem.a_axes[-1]], output.tensor.shape[-1]))
        plan = matmul.tiling(problem, inputs[0], known, processor, "dense")
        return matmul.dense(name, problem, inputs[0], known, output, plan)


class MovedProducts(Family):
    """Products of computed matrices, whose axes lie in another order."""

    blocked: bool | None = False

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The axes of both."""
        return Matmul(node.attributes["a_axes"], node.attributes["b_axes"])

    def reads(self, node: Node) -> int:
        """Both."""
        return 2

    def kernel(
        self, name: str, problem: Any, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """Tiles by the rule."""
        plan = matmul.tiling(problem, inputs[0], inputs[1], processor)
        return matmul.matmul(name, problem, inputs[0], inputs[1], output, plan)


class Products(MovedProducts):
    """Products of computed matrices."""

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The axes of both."""
        return matmul.matmul_problem(node.call)


class Softmaxes(Family):
    """Softmax along any axis."""

    blocked: bool | None = False

    def problem(self, node: Node, processor: Processor) -> Any | None:
        """The axis."""
        return softmax.softmax_problem(node.call)

    def kernel(
        self, name: str, problem: Any, inputs: Sequence[Tensor], output: Output, processor: Processor
    ) -> Function:
        """Vectors along the last axis."""
        return softmax.softmax(name, problem, inputs[0], output, processor)


def _convolution(node: Node, processor: Processor) -> tuple[Convolution | None, Tensor, Tensor]:
    """What a node convolves, and its input and result in blocks as the processor likes them."""
    data, weights = node.inputs
    x = Tensor(data.lengths, layout=processor.layout_for(data.lengths[1]))
    result = Tensor(node.output.lengths, layout=processor.layout_for(node.output.lengths[1]))
    if weights.constant is None:
        return None, x, result
    return convolution_problem(node.call, weights.lengths[2:]), x, result


def _weights(node: Node) -> NDArray[Any]:
    known = node.inputs[1].constant
    assert known is not None
    return known


CHAIN = Chains()

# For each operation the families that may do it, the first that does first.
FAMILIES: Mapping[str, Sequence[Family]] = {
    **{
        f"relax.nn.conv{axes}d{kind}": (NarrowConvolutions(), DepthwiseConvolutions(), Convolutions())
        for axes in (1, 2, 3)
        for kind in ("", "_transpose")
    },
    **{
        f"relax.nn.{kind}_pool{axes}d": (Pools(),)
        for axes in (1, 2, 3)
        for kind in ("max", "avg", "adaptive_avg", "adaptive_max")
    },
    "relax.image.resize2d": (Resizes(),),
    "relax.image.resize3d": (Resizes(),),
    "relax.concat": (Copies(),),
    "relax.strided_slice": (Copies(),),
    "relax.nn.pad": (Copies(),),
    patterns.PART: (Copies(),),
    "relax.mean": (Pools(),),
    "relax.max": (Pools(),),
    "relax.nn.softmax": (Softmaxes(),),
    "relax.matmul": (DenseLayers(), Products()),
    quantization.CONVOLUTION: (
        IntegerConvolutions(),
        NarrowIntegerConvolutions(),
        FewIntegerConvolutions(),
    ),
    patterns.PRODUCT: (MovedProducts(),),
    patterns.NORMALIZATION: (Normalizations(), RowNormalizations()),
}
