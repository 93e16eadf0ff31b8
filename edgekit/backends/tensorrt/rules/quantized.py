"""Rules on quantized networks: QuantizeLinear, DequantizeLinear and what stands between them."""

from __future__ import annotations

from edgekit.backends.tensorrt.rules import predicates as p
from edgekit.backends.tensorrt.rules.rule import Rule

_PAIR = ("QuantizeLinear", "DequantizeLinear")

QUANTIZED = (
    Rule(
        "quantize.zero_point",
        _PAIR,
        "the zero point is zero",
        "table",
        when=p.shifted_zero,
        rewrite="quantize symmetrically",
    ),
    Rule(
        "quantize.uint8",
        _PAIR,
        "numbers are quantized to int8, not to uint8",
        "table",
        when=p.quantizes_to_uint8,
        rewrite="quantize symmetrically, to int8",
    ),
    Rule(
        "conv3d.int8",
        ("Conv",),
        "volumes with QuantizeLinear failed to build in 8.2, and nothing says that 8.5 does better",
        "3-D int8",
        until="8.6",
        ranks=(5,),
        when=p.quantized,
        rewrite="ranges from a calibration cache instead of QuantizeLinear",
        severity="falls back",
    ),
    Rule(
        "conv3d.groups",
        ("Conv",),
        "in groups, convolution of volumes is no faster in int8",
        "3-D int8",
        ranks=(5,),
        when=p.grouped_and_quantized,
        rewrite="leave it in float16",
        severity="slow",
    ),
    Rule(
        "conv.int8_groups",
        ("Conv", "ConvTranspose"),
        "in int8, four divides the channels of a group",
        "header",
        when=p.odd_groups,
        rewrite="leave it in float16",
        severity="falls back",
    ),
    Rule(
        "conv_transpose3d.int8",
        ("ConvTranspose",),
        "with QuantizeLinear, transposed convolution of volumes runs in float16",
        "deconvolution",
        ranks=(5,),
        when=p.quantized,
        rewrite="a convolution whose channels become voxels",
        rewrite_pass="subpixel",
        severity="falls back",
    ),
)
