"""What a table of operators, types and attributes cannot say of a node, each under a name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from edgekit.backends.tensorrt.rules.site import Site, dtype_of
from edgekit.graph import opset as operators
from edgekit.hosts import tensorrt_parser

if TYPE_CHECKING:
    import onnx_ir as ir

MAX_RANK = 8
MAX_TOP_K = 3840
_ELEMENT_TYPES = {
    "", "undefined", "float32", "float16", "bfloat16", "float64", "int64", "int32", "int8", "uint8", "bool",
    "int4", "float8e4m3fn", "float4e2m1",
}  # fmt: skip
_TAKE_UINT8 = {"Cast", "CastLike", "QuantizeLinear", "DequantizeLinear"}


def unknown_domain(site: Site) -> bool:
    """Neither ONNX itself nor edgekit has the operator."""
    return site.node.domain not in ("", "ai.onnx", operators.DOMAIN)


def not_imported(site: Site) -> bool:
    """No version's parser has the operator, and there is no rule of its own for it."""
    known = site.node.op_type in tensorrt_parser.OPERATORS or site.node.op_type == "AffineGrid"
    return site.node.domain in ("", "ai.onnx") and not known


def strange_type(site: Site) -> bool:
    """A type of numbers that TensorRT does not have."""
    return any(dtype_of(value, site.sizes) not in _ELEMENT_TYPES for value in _values(site))


def has_type(dtype: str) -> Callable[[Site], bool]:
    """An input or an output of this type."""

    def check(site: Site) -> bool:
        return any(dtype_of(value, site.sizes) == dtype for value in _values(site))

    return check


def computes_uint8(site: Site) -> bool:
    """Numbers of uint8 inside the network: they may be its inputs and outputs, and cast."""
    return site.node.op_type not in _TAKE_UINT8 and has_type("uint8")(site)


def computes_int8(site: Site) -> bool:
    """Numbers of int8 that no pair of QuantizeLinear and DequantizeLinear stands for."""
    moves = {"QuantizeLinear", "DequantizeLinear", "Constant", "Identity", "Reshape", "Transpose"}
    return site.node.op_type not in moves and has_type("int8")(site)


def too_many_axes(site: Site) -> bool:
    """A tensor of more axes than TensorRT's dimensions have."""
    made = site.made_shape()
    return (site.rank() or 0) > MAX_RANK or (made is not None and len(made) > MAX_RANK)


def computed(*indices: int) -> Callable[[Site], bool]:
    """One of these inputs is known only while the network runs."""
    return lambda site: any(site.computed(index) for index in indices)


def reads(index: int) -> Callable[[Site], bool]:
    """The node has this input."""
    return lambda site: site.has(index)


def further_outputs(site: Site) -> bool:
    """An output after the first one has a name."""
    return any(value.name for value in site.node.outputs[1:])


def rank_beyond(low: int, high: int) -> Callable[[Site], bool]:
    """The first input has fewer or more axes."""

    def check(site: Site) -> bool:
        rank = site.rank()
        return rank is not None and not low <= rank <= high

    return check


def renamed_grid_mode(site: Site) -> bool:
    """GridSample of a 4-D image whose mode has its name of operator set 20."""
    default = "linear" if site.opset >= 20 else "bilinear"
    return site.rank() == 4 and site.get("mode", default) in ("linear", "cubic")


def scales_more_than(axes: int, mode: str) -> Callable[[Site], bool]:
    """Resize of this mode changes more axes than can be, or others than the last ones."""

    def check(site: Site) -> bool:
        before, after = site.shape(), site.made_shape()
        if site.get("mode", "nearest") != mode or before is None or after is None:
            return False
        changed = [a != b for a, b in zip(before, after, strict=True)]
        return any(changed[:-axes]) if len(changed) > axes else False

    return check


def scales_some_axes(site: Site) -> bool:
    """Resize by scales of some axes only."""
    axes, rank = site.get("axes"), site.rank()
    return axes is not None and site.has(2) and list(axes) != list(range(rank or 0))


def other_nearest_mode(site: Site) -> bool:
    """Resize in the coordinates of tf_half_pixel_for_nn, rounded in another way than they can be."""
    plain = site.get("nearest_mode", "round_prefer_floor") == "round_prefer_floor"
    return site.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn" and not plain


def top_k_beyond(site: Site) -> bool:
    """TopK of more elements than the layer takes."""
    count = site.constant(1)
    return count is not None and int(count.reshape(-1)[0]) > MAX_TOP_K


def einsum_beyond(site: Site) -> bool:
    """Einsum with an ellipsis, an index twice in one term, or a length of one against another."""
    equation = str(site.get("equation", "")).replace(" ", "")
    terms = equation.partition("->")[0].split(",")
    if "." in equation or any(len(set(term)) < len(term) for term in terms):
        return True
    lengths: dict[str, set[int]] = {}
    for index, term in enumerate(terms):
        for letter, length in zip(term, site.shape(index) or (), strict=False):
            lengths.setdefault(letter, set()).add(length)
    return any(len(found) > 1 for found in lengths.values())


def capital_letters(site: Site) -> bool:
    """Einsum whose equation has letters that are no small ones."""
    equation = str(site.get("equation", ""))
    return equation != equation.lower()


def training(site: Site) -> bool:
    """Dropout that drops."""
    mode = site.constant(2)
    return site.computed(2) or (mode is not None and bool(mode.any()))


def shifted_zero(site: Site) -> bool:
    """A zero point that is not zero."""
    zero = site.constant(2)
    return site.computed(2) or (zero is not None and bool((zero != 0).any()))


def quantizes_to_uint8(site: Site) -> bool:
    """QuantizeLinear to uint8, or DequantizeLinear of it."""
    if site.node.op_type == "DequantizeLinear":
        return site.dtype() == "uint8"
    made = dtype_of(site.node.outputs[0], site.sizes)
    return site.dtype(2) == "uint8" or (
        not site.has(2) and made in ("", "uint8") and not site.get("output_dtype")
    )


def quantized(site: Site) -> bool:
    """The node's inputs are quantized."""
    return site.quantized()


def odd_groups(site: Site) -> bool:
    """A quantized convolution whose groups have a number of channels that four does not divide."""
    groups, weights = int(site.get("group", 1)), site.shape(1)
    if groups == 1 or weights is None or not site.quantized():
        return False
    made = site.made_shape()
    return weights[1] % 4 != 0 or (made is not None and made[1] // groups % 4 != 0)


def grouped_and_quantized(site: Site) -> bool:
    """A quantized convolution in groups."""
    return int(site.get("group", 1)) > 1 and site.quantized()


def integer_base(site: Site) -> bool:
    """Pow of integers."""
    return site.dtype() in ("int32", "int64")


def _values(site: Site) -> list[ir.Value | None]:
    return [*site.node.inputs, *(value for value in site.node.outputs if value.name)]
