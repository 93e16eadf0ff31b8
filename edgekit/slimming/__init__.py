"""Prune until a network is as much faster as wanted, measured on the target's backends.

    slimmed = edgekit.prune("my.models:lung", ["scans/"], weights="lung.safetensors", speedup=1.8,
                            output="pruned.safetensors")

A share of multiply-adds says little about time: the ratio is found by cutting, compiling and measuring.
"""

from __future__ import annotations

from edgekit.slimming.flow import Slimmed, Trial, prune

__all__ = ["Slimmed", "Trial", "prune"]
