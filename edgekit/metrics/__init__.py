"""How good a result is, in the terms of the task. One class and one line here add a metric.

Which is what :mod:`edgekit.gates` decides by. A device needs none of this.
"""

from __future__ import annotations

from edgekit.metrics.base import Metric
from edgekit.metrics.overlap import dice
from edgekit.registry import Registry

__all__ = ["METRICS", "dice"]

METRICS: Registry[Metric] = Registry(
    "metric",
    {
        "dice": "edgekit.metrics.overlap:DICE",
        "hd95": "edgekit.metrics.surface:HD95",
        "surface_dice": "edgekit.metrics.surface:SURFACE_DICE",
        "accuracy": "edgekit.metrics.scores:ACCURACY",
        "balanced_accuracy": "edgekit.metrics.scores:BALANCED_ACCURACY",
        "sensitivity": "edgekit.metrics.scores:SENSITIVITY",
        "auroc": "edgekit.metrics.scores:AUROC",
        "ece": "edgekit.metrics.scores:ECE",
        "psnr": "edgekit.metrics.image:PSNR",
        "ssim": "edgekit.metrics.image:SSIM",
        "nrmse": "edgekit.metrics.image:NRMSE",
        "snr": "edgekit.metrics.image:SNR",
        "tre": "edgekit.metrics.displacement:TRE",
        "folding": "edgekit.metrics.displacement:FOLDING",
    },
)
