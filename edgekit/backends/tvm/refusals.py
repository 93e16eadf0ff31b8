"""What TVM does not take, on a processor and on a GPU. Nothing of TVM is imported to know it."""

from __future__ import annotations

import functools
import importlib.util
import platform
import re
import shutil
from pathlib import Path
from typing import Any

from edgekit.backends.base import Refusal, node_names
from edgekit.errors import UnavailableError
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.hosts import compilers, cuda
from edgekit.hosts import tvm as kernels
from edgekit.hosts.build import Platform
from edgekit.target import Target

_LINKERS = ("c++", "g++", "clang++")
# The tensor cores that the kernels for a GPU use came with it.
_OLDEST_GPU = 8.0

# Their outputs' lengths are quotients and products of the inputs': TVM cannot prove that two branches of a
# network with varying lengths meet again.
_RESIZING = frozenset(
    {
        "AveragePool",
        "ConvTranspose",
        "DepthToSpace",
        "LpPool",
        "MaxPool",
        "Resize",
        "SpaceToDepth",
        "Upsample",
    }
)
# Its importer lets sums be of the type of what is summed.
_SUMMING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_QUANTIZED = frozenset({"DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"})


def for_processor(graph: Graph, target: Target) -> list[Refusal]:
    """Why a network is not compiled for the target's processor."""
    return [*_compiler_refusals(target), *_operator_refusals(graph, target)]


def for_gpu(graph: Graph, target: Target) -> list[Refusal]:
    """Why a network is not compiled for the target's GPU."""
    if float(target.compute_capability) < _OLDEST_GPU:
        return [
            Refusal(
                f"its kernels for GPUs want tensor cores of compute capability {_OLDEST_GPU} or later, "
                f"{target.title} has {target.compute_capability}",
                hint=f"--backend {_another(target)}",
            )
        ]
    reasons = _compiler_refusals(target)
    if lacking := cuda.missing(target.software.get("cuda", "")):
        reasons.append(Refusal(lacking.message, hint=lacking.hint or ""))
    nodes = list(graph.model.graph.all_nodes())
    if quantized := [n for n in nodes if n.op_type in _QUANTIZED]:
        reasons.append(
            Refusal(
                "quantized layers: its kernels for GPUs compute in half precision",
                node_names(quantized),
                f"--precision float16, or --backend {_another(target)}",
            )
        )
    if not all(isinstance(length, int) for spec in graph.inputs for length in spec.dims):
        reasons.append(Refusal("lengths that vary, on a GPU", hint="fix the lengths with --shape"))
    return reasons + _operator_refusals(graph, target)


def _compiler_refusals(target: Target) -> list[Refusal]:
    if target.arch == platform.machine():
        if any(map(shutil.which, _LINKERS)):
            return []
        return [
            Refusal(
                f"linking needs a C++ compiler: want one of {', '.join(_LINKERS)}",
                hint="apt-get install g++",
            )
        ]
    try:
        compilers.compiler(Platform.of(target))
    except UnavailableError as error:
        return [Refusal(error.message, hint=error.hint or "")]
    return []


def _operator_refusals(graph: Graph, target: Target) -> list[Refusal]:
    nodes = list(graph.model.graph.all_nodes())
    way_out = f"--backend {_another(target)}"
    reasons = []
    known = _importable()
    own = [n for n in nodes if _is_ours(n)]
    unknown = [n for n in nodes if known and n.op_type not in known and n not in own]
    if unknown:
        reasons.append(Refusal("operators that its importer does not know", node_names(unknown), way_out))
    if own and (missing := _missing_for_kernels(target)):
        reasons.append(Refusal(missing.message, node_names(own), missing.hint or ""))
    indexed = [n for n in nodes if n.op_type == "MaxPool" and len(n.outputs) > 1]
    if indexed:
        reasons.append(Refusal("MaxPool with indices", node_names(indexed), way_out))
    padded = [n for n in nodes if n.op_type == "Pad" and _computed(n, 1)]
    if padded:
        reasons.append(
            Refusal("Pad with widths that are computed while running", node_names(padded), way_out)
        )
    half = [n for n in nodes if n.op_type in _SUMMING and _has_16_bits(n)]
    if half:
        reasons.append(
            Refusal(
                "layers in 16 bits, which it would sum up in 16 bits, several times slower than in float32",
                node_names(half),
                f"take another precision, or {way_out}",
            )
        )
    varying = any(not isinstance(length, int) for spec in graph.inputs for length in spec.dims[2:])
    resizing = [n for n in nodes if n.op_type in _RESIZING or _strided(n)]
    if varying and resizing:
        reasons.append(
            Refusal(
                "lengths that vary, in a network that changes them on the way",
                node_names(resizing),
                f"fix the lengths with --shape, or {way_out}",
            )
        )
    return reasons


def _is_ours(node: Any) -> bool:
    """Whether the network calls edgekit's kernels for a node: one of the domain, or 5-D GridSample."""
    if node.domain == opset.DOMAIN:
        return node.op_type in opset.OPERATORS
    image = node.inputs[0] if node.op_type == "GridSample" else None
    return image is not None and image.shape is not None and len(image.shape) == 5


def _missing_for_kernels(target: Target) -> UnavailableError | None:
    """What a network is linked with that is not here."""
    try:
        compilers.compiler(Platform.of(target))
        kernels.adapter()
    except UnavailableError as error:
        return error
    return None


@functools.cache
def _importable() -> frozenset[str]:
    """Operators in the table of TVM's ONNX importer; empty where it cannot be read.

    It is read from the source text: importing the compiler would take a second and hundreds of megabytes.
    """
    found = importlib.util.find_spec("tvm")
    if found is None or found.origin is None:
        return frozenset()
    source = Path(found.origin).parent / "relax" / "frontend" / "onnx" / "onnx_frontend.py"
    if not source.is_file():
        return frozenset()
    _, _, table = source.read_text(encoding="utf-8").partition("def _get_convert_map(")
    return frozenset(re.findall(r'^ {8}"(\w+)": ', table.partition("\nclass ")[0], re.MULTILINE))


def _computed(node: Any, index: int) -> bool:
    """Whether an input is neither a weight nor a Constant."""
    value = node.inputs[index] if len(node.inputs) > index else None
    if value is None or value.const_value is not None:
        return False
    producer = value.producer()
    return producer is None or producer.op_type != "Constant"


def _strided(node: Any) -> bool:
    strides = node.attributes.get("strides") if node.op_type == "Conv" else None
    return strides is not None and any(stride > 1 for stride in strides.as_ints())


def _has_16_bits(node: Any) -> bool:
    kinds = [value.dtype for value in (*node.inputs, *node.outputs) if value is not None]
    return any(kind is not None and kind.name in ("FLOAT16", "BFLOAT16") for kind in kinds)


def _another(target: Target) -> str:
    return next((name for name in target.backends if name != "tvm"), "reference")
