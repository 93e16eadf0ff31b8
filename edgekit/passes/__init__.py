"""Transformations of graphs, by name. One file and one line here add one."""

from __future__ import annotations

from edgekit.hosts import tensorrt_parser
from edgekit.passes.base import Pass
from edgekit.registry import Registry
from edgekit.target import Target

PASSES: Registry[type[Pass]] = Registry(
    "pass",
    {
        "simplify": "edgekit.passes.simplify:SimplifyPass",
        "nativize": "edgekit.passes.nativize:NativizePass",
        "fold_upsampling": "edgekit.passes.upsampling:FoldUpsamplingPass",
        "decompose": "edgekit.passes.decompose:DecomposePass",
        "split_tail": "edgekit.passes.split:SplitTailPass",
        "lower_opset": "edgekit.passes.lowering:LowerOpsetPass",
        "subpixel": "edgekit.passes.subpixel:SubpixelPass",
    },
)

_COMMON = ("simplify", "nativize", "fold_upsampling", "split_tail")
# TensorRT has no int8 for transposed convolutions of volumes, and the accelerator none with padding: what is
# resized and then convolved stays so.
_TENSORRT = ("simplify", "nativize", "decompose", "split_tail", "lower_opset")


def default_passes(target: Target) -> list[Pass]:
    """What every model goes through on its way to ``target``, in order."""
    names = _COMMON if tensorrt_parser.version_for(target) is None else _TENSORRT
    return [PASSES[name]() for name in names]
