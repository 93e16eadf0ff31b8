"""Rules of the deep-learning accelerator of Jetson Orin. A node that breaks one runs on the GPU instead."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from edgekit.backends.tensorrt.rules import predicates as p
from edgekit.backends.tensorrt.rules.rule import EVERY, Rule
from edgekit.backends.tensorrt.rules.site import Site

# ONNX operators of which TensorRT makes layers that the accelerator has.
OPERATORS = frozenset(
    (
        "Abs", "Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Conv", "ConvTranspose", "LRN",
        "LeakyRelu", "Max", "MaxPool", "Min", "Mul", "PRelu", "Relu", "Resize", "Sigmoid", "Slice", "Softmax",
        "Sub", "Tanh",
    )
)  # fmt: skip
# What is no layer of its own there.
FREE = frozenset(("Constant", "Dropout", "Identity"))
_LONG = (64, 96, 128)
_RESIZES = {
    ("nearest", "asymmetric", "floor"),
    ("nearest", "half_pixel", "round_prefer_floor"),
    ("nearest", "half_pixel", "round_prefer_ceil"),
    ("linear", "half_pixel", ""),
    ("linear", "pytorch_half_pixel", ""),
}


def _outside(values: Sequence[int], low: int, high: int) -> bool:
    return any(not low <= value <= high for value in values)


def _attribute_outside(name: str, low: int, high: int) -> Callable[[Site], bool]:
    return lambda site: _outside(site.get(name, ()), low, high)


def _kernel_outside(low: int, high: int) -> Callable[[Site], bool]:
    return lambda site: _outside(site.kernel(), low, high)


def _other_operator(site: Site) -> bool:
    return bool(site.node.domain) or site.node.op_type not in OPERATORS | FREE


def _is_layer(site: Site) -> bool:
    return not site.node.domain and site.node.op_type in OPERATORS


def _other_rank(site: Site) -> bool:
    return _is_layer(site) and site.rank() not in (None, 4)


def _too_long(site: Site) -> bool:
    shapes = [shape for shape in (site.shape(), site.made_shape()) if shape and _is_layer(site)]
    return any(shape[0] > 4096 or _outside(shape[1:], 1, 8192) for shape in shapes)


def _pads_beyond_kernel(site: Site) -> bool:
    pads, kernel = site.get("pads", ()), site.kernel()
    return _outside(pads, 0, 31) or any(
        pad >= length for pad, length in zip(pads, (*kernel, *kernel), strict=False)
    )


def _too_many_maps(site: Site) -> bool:
    made = site.made_shape()
    return int(site.get("group", 1)) > 8192 or (made is not None and made[1] > 8192)


def _padded(site: Site) -> bool:
    automatic = site.get("auto_pad", "NOTSET") in ("SAME_UPPER", "SAME_LOWER")
    return automatic or any(site.get("pads", ())) or any(site.get("output_padding", ()))


def _grouped_or_dilated(site: Site) -> bool:
    return int(site.get("group", 1)) != 1 or any(step != 1 for step in site.get("dilations", ()))


def _steps_beyond(values: Sequence[int]) -> bool:
    """Lengths of a deconvolution: 1 to 32, or a long one along one axis."""
    if not _outside(values, 1, 32):
        return False
    return not any(value in _LONG for value in values) or sorted(values)[:-1] != [1] * (len(values) - 1)


def _deconvolves_beyond(site: Site) -> bool:
    return _steps_beyond(site.kernel()) or _steps_beyond(tuple(site.get("strides", (1,))))


def _pools_beyond(site: Site) -> bool:
    window, strides = site.get("kernel_shape", ()), site.get("strides", ())
    return _outside(window, 1, 8) or _outside(strides, 1, 16) or _outside(site.get("pads", ()), 0, 7)


def _clips_beyond(site: Site) -> bool:
    return site.node.op_type == "Clip" and any(
        (bound := site.constant(index)) is None or not low <= float(bound.reshape(-1)[0]) <= high
        for index, low, high in ((1, 0, 0), (2, 1, 127))
    )


def _other_axis(site: Site) -> bool:
    axis, rank = int(site.get("axis", 1)), site.rank()
    return axis % rank != 1 if rank else axis != 1


def _resizes_beyond(site: Site) -> bool:
    mode = site.get("mode", "nearest")
    rounding = site.get("nearest_mode", "round_prefer_floor") if mode == "nearest" else ""
    how = (mode, site.get("coordinate_transformation_mode", "half_pixel"), rounding)
    scales = site.constant(2)
    if how not in _RESIZES or scales is None or scales.size != 4 or site.get("axes"):
        return True
    largest = 32 if mode == "nearest" else 4
    whole = all(float(scale).is_integer() and 1 <= scale <= largest for scale in scales)
    return not whole or list(scales[:2]) != [1, 1]


def _normalizes_beyond(site: Site) -> bool:
    shape = site.shape()
    if shape is None:
        return True
    axis = int(site.get("axis", -1 if site.opset >= 13 else 1)) % len(shape)
    others = [length for place, length in enumerate(shape) if place not in (0, axis)]
    return axis == 0 or shape[axis] > (8192 if set(others) <= {1} else 1024)


def _slices_beyond(site: Site) -> bool:
    bounds = [site.constant(index) for index in range(1, len(site.node.inputs))]
    if any(bound is None for index, bound in enumerate(bounds, 1) if site.has(index)):
        return True
    axes, steps = site.constant(3), site.constant(4)
    first = axes is None or 0 in axes or -4 in axes
    return first or (steps is not None and bool((steps != 1).any()))


def _one_operand(site: Site) -> bool:
    return len([value for value in site.node.inputs if value is not None]) != 2


def _other_window(site: Site) -> bool:
    return site.get("size") not in (3, 5, 7, 9)


def _rule(
    name: str, operators: tuple[str, ...], reason: str, source: str, when: Callable[[Site], bool]
) -> Rule:
    return Rule(f"dla.{name}", operators, reason, source, when=when, severity="falls back")


# Of the whole network; the predicates are the network's own, in the package's __init__.
RELEASE = Rule(
    "dla.release",
    EVERY,
    "the accelerator is supported up to 10.7, and on AGX Orin again from 11.4.1 on",
    "dla releases",
    since="10.8",
    until="11.4.1",
    rewrite="the GPU alone",
    severity="falls back",
)
STATIC = Rule(
    "dla.static",
    EVERY,
    "the accelerator takes fixed shapes only",
    "dla page",
    rewrite="fix the shapes: --shape",
    severity="falls back",
)
LOADABLES = Rule(
    "dla.loadables",
    EVERY,
    "the accelerator has 16 parts of networks loaded at once",
    "dla page",
    rewrite="keep some of the parts on the GPU, by layerDeviceTypes",
    severity="falls back",
)

_CONV, _DECONV, _BOTH = ("Conv",), ("ConvTranspose",), ("Conv", "ConvTranspose")
_PAIRS = ("Add", "Sub", "Mul", "Max", "Min")

DLA = (
    _rule("operator", EVERY, "the accelerator has no such layer", "dla operators", _other_operator),
    Rule(
        "dla.explicit",
        ("QuantizeLinear", "DequantizeLinear"),
        "the accelerator takes ranges, not QuantizeLinear",
        "dla operators",
        until="11.4.1",
        rewrite="ranges from a calibration cache instead of QuantizeLinear",
        severity="falls back",
    ),
    _rule("rank", EVERY, "the accelerator takes images [N, C, H, W] only", "dla page", _other_rank),
    _rule("length", EVERY, "a batch has at most 4096 images, any other axis 8192", "dla page", _too_long),
    _rule("conv.kernel", _CONV, "windows are 1 to 32 long", "header", _kernel_outside(1, 32)),
    _rule("conv.stride", _CONV, "strides are 1 to 8", "header", _attribute_outside("strides", 1, 8)),
    _rule(
        "conv.padding", _CONV, "padding is 0 to 31 and less than the window", "header", _pads_beyond_kernel
    ),
    _rule("conv.dilation", _CONV, "dilations are 1 to 32", "header", _attribute_outside("dilations", 1, 32)),
    _rule("conv.maps", _BOTH, "there are at most 8192 maps and groups", "header", _too_many_maps),
    _rule("conv.weights", _BOTH, "weights are constants", "dla page", p.computed(1, 2)),
    Rule(
        "dla.deconv.padding",
        _DECONV,
        "transposed convolution has no padding",
        "header",
        when=_padded,
        rewrite="windows as long as the stride, or a convolution whose channels become voxels",
        rewrite_pass="subpixel",
        severity="falls back",
    ),
    _rule("deconv.groups", _DECONV, "it has one group and no dilation", "header", _grouped_or_dilated),
    _rule("deconv.kernel", _DECONV, "windows and strides are 1 to 32", "header", _deconvolves_beyond),
    _rule(
        "pool.window",
        ("MaxPool", "AveragePool"),
        "windows are 1 to 8 long, strides 1 to 16, padding 0 to 7",
        "header",
        _pools_beyond,
    ),
    _rule("clip", ("Clip",), "values are clipped to 0 and a bound of 1 to 127", "dla page", _clips_beyond),
    _rule("concat.axis", ("Concat",), "channels are joined only", "header", _other_axis),
    _rule(
        "resize",
        ("Resize",),
        "pixels are repeated up to 32 times, or interpolated up to 4 times",
        "header",
        _resizes_beyond,
    ),
    _rule("softmax", ("Softmax",), "at most 1024 values, 8192 of a pixel", "header", _normalizes_beyond),
    _rule("slice", ("Slice",), "fixed bounds with step 1, and not of the batch", "header", _slices_beyond),
    _rule("element_wise", _PAIRS, "it takes two operands", "header", _one_operand),
    _rule("prelu.slope", ("PRelu",), "slopes are constants", "header", p.computed(1)),
    _rule("lrn.size", ("LRN",), "windows are 3, 5, 7 or 9 long", "header", _other_window),
)
