"""Transformations of graphs, by name. One file and one line here add one."""

from __future__ import annotations

from edgekit.passes.base import Pass
from edgekit.registry import Registry
from edgekit.target import Target

PASSES: Registry[type[Pass]] = Registry(
    "pass",
    {
        "simplify": "edgekit.passes.simplify:SimplifyPass",
        "nativize": "edgekit.passes.nativize:NativizePass",
        "fold_upsampling": "edgekit.passes.upsampling:FoldUpsamplingPass",
        "split_tail": "edgekit.passes.split:SplitTailPass",
    },
)


def default_passes(target: Target) -> list[Pass]:
    """What every model goes through on its way to ``target``, in order."""
    return [PASSES[name]() for name in ("simplify", "nativize", "fold_upsampling", "split_tail")]
