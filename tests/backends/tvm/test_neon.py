"""The code for Arm processors, as LLVM writes it: what its inner loops are made of."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from kernel_runs import assembly

from edgekit.backends.tvm import convolution, depthwise, matmul, narrow
from edgekit.backends.tvm.elementwise import Output, Step, elementwise
from edgekit.backends.tvm.functions import DEQUANTIZE, FUNCTIONS, QUANTIZE
from edgekit.backends.tvm.loops import Function
from edgekit.backends.tvm.matmul import Matmul
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.softmax import Softmax, softmax
from edgekit.backends.tvm.tensor import PLAIN, Layout, Tensor
from edgekit.backends.tvm.tiles import Convolution
from edgekit.target import find

PROCESSORS = {
    "every Arm processor": Processor.least("aarch64"),
    "Jetson Orin": Processor.of(find("jetson-orin-nano-8gb")),
}
each_processor = pytest.mark.parametrize("processor", PROCESSORS.values(), ids=PROCESSORS)

# What multiplies and adds: four pairs of numbers, and four numbers with one lane of a register.
PAIRS = r"fmla\tv\d+\.4s, v\d+\.4s, v\d+\.4s"
BY_ELEMENT = r"fmla\tv\d+\.4s, v\d+\.4s, v\d+\.s\[\d\]"


def inner_loops(text: str) -> list[list[str]]:
    """The instructions of all loops that hold no other one."""
    found, label, body = [], "", []
    for line in text.splitlines():
        if named := re.match(r"(\.L\w+):", line):
            label, body = named[1], []
        elif re.match(r"\t[a-z]", line):
            body.append(line.strip())
            if label and re.search(rf"{re.escape(label)}$", line):
                found.append(list(body))
    return found


def hot_loop(text: str, instruction: str) -> list[str]:
    """The inner loop with most of an instruction."""
    return max(inner_loops(text), key=lambda loop: count(loop, instruction))


def count(loop: list[str], instruction: str) -> int:
    return sum(bool(re.match(instruction, line)) for line in loop)


def calls(text: str) -> set[str]:
    """Functions that are called by name, but for those of TVM's."""
    found = set(re.findall(r"^\tbl?\t([A-Za-z_]\w*)", text, re.MULTILINE))
    return {name for name in found if not name.startswith(("main", "__tvm", "__TVM", "TVM"))}


def convolved(
    inputs: int, outputs: int, taps: tuple[int, ...], lengths: tuple[int, ...], **more: int
) -> Callable[[Processor], Function]:
    """A convolution that keeps the lengths, or strides over them."""
    rank, stride, transposed = len(taps), more.get("stride", 1), bool(more.get("transposed"))

    def make(processor: Processor) -> Function:
        pads = tuple(0 if transposed else tap // 2 for tap in taps)
        problem = Convolution(taps, (stride,) * rank, (1,) * rank, pads, more.get("groups", 1), transposed)
        results = [n * stride if transposed else -(-n // stride) for n in lengths]
        halo = problem.halo(lengths, results)
        x = Tensor((1, inputs, *lengths), layout=processor.layout_for(inputs, halo))
        few = outputs <= 3
        result = Tensor((1, outputs, *results), layout=PLAIN if few else processor.layout_for(outputs))
        if few:
            assert narrow.takes(problem, x, result)
            return narrow.narrow("main", problem, x, Output(result), processor)
        if depthwise.takes(problem, x, result):
            return depthwise.depthwise("main", problem, x, Output(result), processor)
        plan = convolution.tiling(problem, x, result, processor)
        return convolution.convolution("main", problem, x, Output(result), plan)

    return make


def multiplied(rows: int, depth: int, columns: int, *, known: bool) -> Callable[[Processor], Function]:
    """A product with a known matrix, or of two computed ones, the second transposed."""

    def make(processor: Processor) -> Function:
        a, result = Tensor((rows, depth)), Output(Tensor((rows, columns)))
        b = Tensor((depth, columns) if known else (columns, depth))
        problem = Matmul((0, 1), (0, 1) if known else (1, 0))
        plan = matmul.tiling(problem, a, b, processor)
        write = matmul.dense if known else matmul.matmul
        return write("main", problem, a, b, result, plan)

    return make


# A kernel, its instruction, how many of them the inner loop has at least, and instructions for each.
KERNELS: dict[str, tuple[Callable[[Processor], Function], str, int, float]] = {
    "3 × 3": (convolved(64, 64, (3, 3), (64, 64)), BY_ELEMENT, 64, 1.3),
    "3 × 3, odd width": (convolved(64, 64, (3, 3), (21, 21)), BY_ELEMENT, 56, 1.35),
    "3 × 3, few places": (convolved(512, 512, (3, 3), (4, 4)), BY_ELEMENT, 64, 1.3),
    "3 × 3, blocks of 4": (convolved(24, 12, (3, 3), (30, 30)), BY_ELEMENT, 56, 1.45),
    "3 × 3, stride 2": (convolved(32, 64, (3, 3), (64, 64), stride=2), BY_ELEMENT, 64, 1.3),
    "1 × 1": (convolved(128, 96, (1, 1), (14, 14)), BY_ELEMENT, 56, 1.35),
    "3 × 3 × 3": (convolved(32, 32, (3, 3, 3), (24, 24, 24)), BY_ELEMENT, 64, 1.3),
    "transposed": (convolved(64, 32, (2, 2), (32, 32), stride=2, transposed=1), BY_ELEMENT, 64, 1.3),
    "groups": (convolved(32, 64, (3, 3), (32, 32), groups=2), BY_ELEMENT, 64, 1.3),
    "depthwise": (convolved(32, 32, (3, 3), (40, 40), groups=32), PAIRS, 20, 2.2),
    "to 1 channel": (convolved(64, 1, (3, 3), (40, 40)), PAIRS, 16, 2.1),
    "to 3 channels": (convolved(32, 3, (1, 1), (40, 40)), PAIRS, 24, 1.6),
    "from 2 channels to 3": (convolved(2, 3, (3, 3), (40, 40)), BY_ELEMENT, 12, 1.8),
    "dense": (multiplied(196, 384, 1152, known=True), BY_ELEMENT, 80, 1.3),
    "dense, one row": (multiplied(1, 512, 1000, known=True), BY_ELEMENT, 80, 2.0),
    "attention": (multiplied(196, 64, 196, known=False), BY_ELEMENT, 56, 1.4),
}


@each_processor
@pytest.mark.parametrize("name", KERNELS)
def test_inner_loops_multiply_in_registers(name: str, processor: Processor) -> None:
    make, instruction, least, most = KERNELS[name]
    text = assembly(make(processor), processor)
    loop = hot_loop(text, instruction)
    multiplications = count(loop, instruction)
    assert multiplications >= least
    assert len(loop) <= most * multiplications
    # Nothing is kept on the stack: but where every register is in use, LLVM's order for no processor in
    # particular wants one more.
    stack = [line for line in loop if "[sp" in line]
    assert len(stack) <= (2 if name == "to 3 channels" and processor.mcpu == "generic" else 0)
    assert not calls(text)


def test_a_first_layer_reads_numbers_one_by_one() -> None:
    """Its channels do not lie side by side."""
    processor = PROCESSORS["Jetson Orin"]
    loop = hot_loop(assembly(convolved(3, 64, (7, 7), (64, 64), stride=2)(processor), processor), "fmla")
    assert count(loop, PAIRS) + count(loop, BY_ELEMENT) >= 16
    assert not [line for line in loop if "[sp" in line]


BINARY = (
    *("relax.add", "relax.divide", "relax.maximum", "relax.minimum", "relax.multiply", "relax.nn.prelu"),
    "relax.subtract",
)


@each_processor
@pytest.mark.parametrize("layout", [PLAIN, Layout(8)], ids=["in order", "blocks"])
def test_chains_are_vectors(layout: Layout, processor: Processor) -> None:
    """No number of a chain is computed by itself, and none by the C library."""
    given = (*BINARY, "relax.clip", QUANTIZE, DEQUANTIZE)
    unary = [name for name in FUNCTIONS if name not in given]
    parameters = {"relax.nn.leakyrelu": (0.1,)}
    steps = [Step("relax.clip", (0,), (-3.0, 3.0))]
    steps += [Step(name, (i + 1,), parameters.get(name, ())) for i, name in enumerate(unary)]
    steps += [Step(name, (len(steps), 0)) for name in BINARY]
    tensor = Tensor((1, 16, 20, 32), layout=layout)
    text = assembly(elementwise("main", tensor, Output(tensor, tuple(steps)), processor), processor)
    loop = hot_loop(text, r"f\w+\tv\d+\.4s")
    assert count(loop, r"f\w+\tv\d+\.4s") > 100
    assert not [line for line in loop if re.match(r"f\w+\ts\d+", line)]
    assert not calls(text)


@each_processor
def test_softmax_calls_nothing(processor: Processor) -> None:
    tensor = Tensor((4, 50, 64))
    text = assembly(softmax("main", Softmax(2), tensor, Output(tensor), processor), processor)
    assert count(hot_loop(text, r"f\w+\tv\d+\.4s"), r"f\w+\tv\d+\.4s") > 10
    assert not calls(text)
