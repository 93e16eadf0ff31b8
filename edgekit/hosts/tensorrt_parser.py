"""What TensorRT's parser of ONNX knows, version by version: operator sets, and operators by name.

Passes rewrite by it what a version lacks; the rules of :mod:`edgekit.backends.tensorrt.rules` go into detail.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from edgekit.errors import UsageError
from edgekit.target import Target

Version = tuple[int, ...]

OLDEST: Version = (8, 5)


def parse(text: str) -> Version:
    """``(10, 16, 2)`` for ``"10.16.2"``.

    Raises:
        UsageError: It is no version, or one before 8.5.
    """
    match = re.fullmatch(r"(\d+)\.(\d+)(?:\.(\d+))?(?:\.\d+)*", text)
    version = tuple(int(part) for part in match.groups() if part) if match else ()
    if version < OLDEST:
        raise UsageError(f"TensorRT: want a version of 8.5 or later, got {text!r}", hint="such as 10.3")
    return version


def version_for(target: Target) -> Version | None:
    """The TensorRT of a target that is compiled for with it; ``None`` where it is not."""
    text = target.software.get("tensorrt", "")
    return parse(text) if text and "tensorrt" in target.backends else None


@dataclass(frozen=True)
class OperatorSets:
    """The newest operator set that a version takes.

    Attributes:
        since: First version that takes it.
        newest: The operator set.
        source: Where it is said.
    """

    since: Version
    newest: int
    source: str


# 10.6 to 10.14: no table of theirs was found; the parser was then built with ONNX 1.17, whose newest is 22.
OPERATOR_SETS = (
    OperatorSets((8, 5), 17, "github.com/onnx/onnx-tensorrt docs/operators.md at 8.5-GA and 8.6-GA"),
    OperatorSets((10, 0), 20, "github.com/onnx/onnx-tensorrt docs/operators.md at 10.0-GA and 10.1-GA"),
    OperatorSets((10, 6), 22, "github.com/onnx/onnx-tensorrt docs/Changelog.md: ONNX 1.17 from 10.6"),
    OperatorSets((10, 15), 24, "github.com/onnx/onnx-tensorrt docs/operators.md at 10.15-GA and 11.1-GA"),
    OperatorSets((11, 5), 25, "github.com/onnx/onnx-tensorrt, release 11.5-GA"),
)


def operator_sets(version: Version) -> OperatorSets:
    """Of the last release that is not later than the version."""
    return [entry for entry in OPERATOR_SETS if entry.since <= version][-1]


_FROM_THE_BEGINNING = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu
    Clip Concat Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div
    Dropout Einsum Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm
    GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample GRU HardSigmoid HardSwish
    Identity If InstanceNormalization IsNaN LeakyRelu Less LessOrEqual Log LogSoftmax Loop LpNormalization
    LpPool LRN LSTM MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg NonMaxSuppression
    NonZero Not OneHot Or Pad Pow PRelu QuantizeLinear RandomNormal RandomNormalLike RandomUniform
    RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RNN RoiAlign Round
    Scan Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax
    Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu Tile TopK Transpose
    Trilu Unsqueeze Upsample Where Xor
"""
_LATER = {
    "GroupNormalization": (8, 6),
    "IsInf": (8, 6),
    "LayerNormalization": (8, 6),
    "Hardmax": (9, 2),
    "CastLike": (10, 0),
    "Gelu": (10, 0),
    "Mish": (10, 0),
    "DeformConv": (10, 1),
    "BlackmanWindow": (10, 4),
    "HammingWindow": (10, 4),
    "HannWindow": (10, 4),
    "STFT": (10, 5),
    "Attention": (10, 14),
    "RMSNormalization": (10, 15),
    "RotaryEmbedding": (10, 15),
    "TensorScatter": (10, 15),
    "Swish": (11, 0),
    "DFT": (11, 2),
}
# ONNX operators of the domain "" and the first version whose parser imports them. Source: docs/operators.md
# and docs/Changelog.md of github.com/onnx/onnx-tensorrt at 8.5-GA, 8.6-GA, 10.1-GA, 10.15-GA and 11.1-GA; the
# releases v11.2 and v11.5 of github.com/NVIDIA/TensorRT. What is not here is imported by none.
OPERATORS: dict[str, Version] = dict.fromkeys(_FROM_THE_BEGINNING.split(), OLDEST) | _LATER


def imports(operator: str, version: Version) -> bool:
    """Whether the version's parser imports the operator at all."""
    return operator in OPERATORS and OPERATORS[operator] <= version
