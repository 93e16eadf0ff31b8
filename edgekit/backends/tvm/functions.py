"""Element-wise functions as kernels compute them: on vectors, without calls of the C library.

LLVM takes a vector's exponential apart into calls of ``expf``, one for each lane. Here such functions are
polynomials, of the precision of float32 (a few units in the last place), the same on every processor. Their
coefficients are those of Cephes (S. Moshier); NaN goes through all of them.

TVM takes an expression for a tree: what a function uses several times would be compiled as often, and what
that uses in turn. So functions keep such values (``kept``), and are called while a kernel is written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from tvm import tirx

from edgekit.backends.tvm.loops import Expr, kept

# exp(x) = 2^n exp(r): ln 2 in two parts, so that n times the first is exact.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
# Where float32 ends. What is below is 0, what is above infinite.
_EXP_LEAST, _EXP_MOST = -87.33654, 88.72283
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_TANH = (-5.70498872745e-3, 2.06390887954e-2, -5.37397155531e-2, 1.33314422036e-1, -3.33332819422e-1)
_ERF = (
    *(7.853861353153693e-5, -8.010193625184903e-4, 5.188327685732524e-3, -2.685381193529856e-2),
    *(1.128358514861418e-1, -3.761262582423300e-1, 1.128379165726710),
)
# Abramowitz and Stegun 7.1.26, for arguments above 1: an error of 1.5e-7.
_ERFC = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_ERFC_SCALE = 0.3275911
_LEAST_NORMAL = 2.0**-126
_LOG = (
    *(7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1),
    *(-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1),
)
# A float32 of this size has no fraction: added to a number of up to 22 bits, it leaves the nearest integer
# in the low bits, the even one of two.
_TO_INTEGER, _TO_INTEGER_BITS = 12582912.0, 0x4B400000


def lanes(value: Expr) -> int:
    """Numbers in a vector; 1 for a number."""
    return int(value.ty.dtype.lanes)


def like(value: Expr, number: float) -> Expr:
    """A number of a value's type, in as many lanes."""
    whole = value.ty.dtype
    scalar = tirx.const(number, str(whole).split("x")[0])
    return tirx.Broadcast(scalar, whole.lanes) if whole.lanes > 1 else scalar


def relu(x: Expr) -> Expr:
    """The larger of x and 0; NaN stays."""
    return tirx.Select(x < like(x, 0), like(x, 0), x)


def leaky_relu(x: Expr, alpha: float) -> Expr:
    """X, or alpha times x where it is negative."""
    return tirx.Select(x < like(x, 0), x * like(x, alpha), x)


def prelu(x: Expr, slope: Expr) -> Expr:
    """X, or slope times x where it is negative."""
    return tirx.Select(x < like(x, 0), x * slope, x)


def clip(x: Expr, low: float, high: float) -> Expr:
    """X between two limits; NaN stays."""
    if low > -math.inf:
        x = tirx.Select(x < like(x, low), like(x, low), x)
    return tirx.Select(x > like(x, high), like(x, high), x) if high < math.inf else x


def exp(x: Expr) -> Expr:
    """Euler's number to the power of x; 0 where that is less than float32's least normal number."""
    x = kept(x)
    # NaN is none of these, and becomes the least.
    inside = tirx.Select(x > like(x, _EXP_LEAST), x, like(x, _EXP_LEAST))
    inside = kept(tirx.Select(inside < like(x, _EXP_MOST), inside, like(x, _EXP_MOST)))
    n = kept(tirx.floor(inside * like(x, math.log2(math.e)) + like(x, 0.5)))
    r = kept(inside - n * like(x, _LN2_HIGH) - n * like(x, _LN2_LOW))
    y = _polynomial(r, _EXP) * (r * r) + r + like(x, 1)
    # n more in the exponent's bits: where 2^n itself is no float32, the product is one all the same.
    bits = tirx.reinterpret(_with_type(x, "int32"), y) + (n.astype(_with_type(x, "int32")) << _integer(x, 23))
    y = tirx.reinterpret(_with_type(x, "float32"), bits)
    y = tirx.Select(x < like(x, _EXP_LEAST), like(x, 0), y)
    return tirx.Select(x <= like(x, _EXP_MOST), y, x + like(x, math.inf))


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + exp(-x))."""
    return like(x, 1) / (like(x, 1) + exp(like(x, 0) - x))


def silu(x: Expr) -> Expr:
    """X times its sigmoid."""
    x = kept(x)
    return x / (like(x, 1) + exp(like(x, 0) - x))


def tanh(x: Expr) -> Expr:
    """Hyperbolic tangent."""
    x = kept(x)
    square, size = kept(x * x), kept(absolute(x))
    small = _polynomial(square, _TANH) * square * x + x
    large = kept(like(x, 1) - like(x, 2) / (exp(size + size) + like(x, 1)))
    large = tirx.Select(x < like(x, 0), like(x, 0) - large, large)
    return tirx.Select(size < like(x, 0.625), small, large)


def erf(x: Expr) -> Expr:
    """Error function."""
    x = kept(x)
    square, size = kept(x * x), kept(absolute(x))
    small = _polynomial(square, _ERF) * x
    t = kept(like(x, 1) / (like(x, 1) + like(x, _ERFC_SCALE) * size))
    large = kept(like(x, 1) - _polynomial(t, _ERFC) * t * exp(like(x, 0) - square))
    large = tirx.Select(x < like(x, 0), like(x, 0) - large, large)
    return tirx.Select(size < like(x, 1), small, large)


def gelu(x: Expr) -> Expr:
    """X times the normal distribution function of x (Hendrycks and Gimpel 2016)."""
    x = kept(x)
    return like(x, 0.5) * x * (like(x, 1) + erf(x * like(x, math.sqrt(0.5))))


def gelu_tanh(x: Expr) -> Expr:
    """The approximation of :func:`gelu` through the hyperbolic tangent."""
    x = kept(x)
    inner = like(x, math.sqrt(2 / math.pi)) * (x + like(x, 0.044715) * x * x * x)
    return like(x, 0.5) * x * (like(x, 1) + tanh(inner))


def log(x: Expr) -> Expr:
    """Natural logarithm; -infinity at 0, NaN below."""
    x = kept(x)
    # Where the exponent's bits are all zero: 2^23 times as much.
    tiny = x < like(x, _LEAST_NORMAL)
    bits = kept(tirx.reinterpret(_with_type(x, "int32"), tirx.Select(tiny, x * like(x, 2.0**23), x)))
    exponent = (bits >> _integer(x, 23)) - tirx.Select(tiny, _integer(x, 126 + 23), _integer(x, 126))
    mantissa = (bits & _integer(x, 0x007FFFFF)) | _integer(x, 0x3F000000)
    m = kept(tirx.reinterpret(_with_type(x, "float32"), mantissa))
    low = m < like(x, math.sqrt(0.5))
    n = kept(exponent.astype(_with_type(x, "float32")) - tirx.Select(low, like(x, 1), like(x, 0)))
    r = kept(tirx.Select(low, m + m, m) - like(x, 1))
    square = kept(r * r)
    y = _polynomial(r, _LOG) * r * square + n * like(x, _LN2_LOW) - like(x, 0.5) * square
    y = r + y + n * like(x, _LN2_HIGH)
    # Infinity and NaN stay.
    y = tirx.Select(x < like(x, math.inf), y, x)
    y = tirx.Select(x == like(x, 0), like(x, -math.inf), y)
    return tirx.Select(x < like(x, 0), like(x, math.nan), y)


def softplus(x: Expr) -> Expr:
    """log(1 + exp(x)), without overflow."""
    x = kept(x)
    return maximum(x, like(x, 0)) + log(like(x, 1) + exp(like(x, 0) - absolute(x)))


def absolute(x: Expr) -> Expr:
    """X without its sign."""
    return tirx.Select(x < like(x, 0), like(x, 0) - x, x)


def negative(x: Expr) -> Expr:
    """Minus x."""
    return like(x, 0) - x


def maximum(x: Expr, y: Expr) -> Expr:
    """The larger of two; NaN where either is."""
    return _unless_nan(x, tirx.Select(x > y, x, y))


def minimum(x: Expr, y: Expr) -> Expr:
    """The smaller of two; NaN where either is."""
    return _unless_nan(x, tirx.Select(x < y, x, y))


def square(x: Expr) -> Expr:
    """X times x."""
    return x * x


def quantize(x: Expr, scale: float, zero_point: float, least: float, most: float, signed: float) -> Expr:
    """The byte nearest to ``x / scale + zero_point``, the even one of two (ONNX QuantizeLinear).

    It is signed or not, and lies between the least and the most, which its type may exceed.

    Multiplied with the reciprocal: where the quotient lies within rounding of the middle between two bytes,
    the result may be the other one. NaN gives the least.
    """
    low, high = least - zero_point, most - zero_point
    reciprocal = np.float32(1) / np.float32(scale)
    # The reciprocal of the least numbers is infinite.
    y = x * like(x, float(reciprocal)) if np.isfinite(reciprocal) else x / like(x, scale)
    y = tirx.min(tirx.max(y, like(x, low)), like(x, high)) + like(x, _TO_INTEGER)
    bits = tirx.reinterpret(_with_type(x, "int32"), y) - _integer(x, _TO_INTEGER_BITS - int(zero_point))
    return bits.astype(_with_type(x, "int8" if signed else "uint8"))


def dequantize(x: Expr, scale: float, zero_point: float) -> Expr:
    """``(x - zero_point) * scale`` of a byte (ONNX DequantizeLinear)."""
    number = (x.astype(_with_type(x, "int32")) - _integer(x, int(zero_point))).astype(
        _with_type(x, "float32")
    )
    return number * like(number, scale)


# The names of the two in a network: a single scale and zero point for all numbers of a value.
QUANTIZE, DEQUANTIZE = "edgekit.quantize", "edgekit.dequantize"

# Functions of the values alone, by the names of Relax.
FUNCTIONS: Mapping[str, Callable[..., Expr]] = {
    QUANTIZE: quantize,
    DEQUANTIZE: dequantize,
    "relax.abs": absolute,
    "relax.add": lambda x, y: x + y,
    "relax.ceil": tirx.ceil,
    "relax.clip": clip,
    "relax.divide": lambda x, y: x / y,
    "relax.erf": erf,
    "relax.exp": exp,
    "relax.floor": tirx.floor,
    "relax.log": log,
    "relax.maximum": maximum,
    "relax.minimum": minimum,
    "relax.multiply": lambda x, y: x * y,
    "relax.negative": negative,
    "relax.nn.gelu": gelu,
    "relax.nn.gelu_tanh": gelu_tanh,
    "relax.nn.leakyrelu": leaky_relu,
    "relax.nn.prelu": prelu,
    "relax.nn.relu": relu,
    "relax.nn.silu": silu,
    "relax.nn.softplus": softplus,
    "relax.sigmoid": sigmoid,
    "relax.sqrt": tirx.sqrt,
    "relax.rsqrt": lambda x: like(x, 1) / tirx.sqrt(x),
    "relax.square": square,
    "relax.subtract": lambda x, y: x - y,
    "relax.tanh": tanh,
}


def _unless_nan(x: Expr, y: Expr) -> Expr:
    """Y, but NaN where x is. TVM's ``x != x`` is false for NaN, as all its comparisons are."""
    return tirx.Select(x <= like(x, math.inf), y, x)


def _polynomial(x: Expr, coefficients: Sequence[float]) -> Expr:
    """Horner's form, the highest power first."""
    total = like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + like(x, coefficient)
    return total


def _with_type(value: Expr, dtype: str) -> str:
    return dtype if lanes(value) == 1 else f"{dtype}x{lanes(value)}"


def _integer(value: Expr, number: int) -> Expr:
    scalar: Any = tirx.const(number, "int32")
    return tirx.Broadcast(scalar, lanes(value)) if lanes(value) > 1 else scalar
