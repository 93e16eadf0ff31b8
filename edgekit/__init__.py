"""edgekit: compile trained medical-imaging models for point-of-care devices, and prove what the result does.

    bundle = edgekit.compile(model, target="cpu", shapes={"ct": "1x1x96x96x96"}, output="lung.ekb")
    with edgekit.open("lung.ekb") as session:
        mask = session.run({"ct": volume})["mask"]
        report = edgekit.profile(session)

The names below follow the flow. Nothing heavy is imported until a name is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgekit._version import __version__

if TYPE_CHECKING:
    from edgekit.bundle import Bundle, Manifest
    from edgekit.compression import Compression
    from edgekit.distillation import distil
    from edgekit.errors import EdgekitError
    from edgekit.finalization import finalize
    from edgekit.graph.graph import Graph
    from edgekit.pipeline import Plan, compile, plan
    from edgekit.profiling import profile
    from edgekit.reports import AccuracyLimits, AccuracyReport, Candidate, LatencyReport
    from edgekit.runtime import Session, open
    from edgekit.slimming import prune
    from edgekit.spec import Dim, Step, TensorSpec
    from edgekit.target import Target

_HOME = {
    "TensorSpec": "edgekit.spec",
    "Dim": "edgekit.spec",
    "Step": "edgekit.spec",
    "Target": "edgekit.target",
    "Graph": "edgekit.graph.graph",
    "prune": "edgekit.slimming",
    "distil": "edgekit.distillation",
    "Compression": "edgekit.compression",
    "compile": "edgekit.pipeline",
    "plan": "edgekit.pipeline",
    "Plan": "edgekit.pipeline",
    "Bundle": "edgekit.bundle",
    "Manifest": "edgekit.bundle",
    "open": "edgekit.runtime",
    "Session": "edgekit.runtime",
    "finalize": "edgekit.finalization",
    "profile": "edgekit.profiling",
    "AccuracyLimits": "edgekit.reports",
    "AccuracyReport": "edgekit.reports",
    "Candidate": "edgekit.reports",
    "LatencyReport": "edgekit.reports",
    "EdgekitError": "edgekit.errors",
}

__all__ = [
    "AccuracyLimits",
    "AccuracyReport",
    "Bundle",
    "Candidate",
    "Compression",
    "Dim",
    "EdgekitError",
    "Graph",
    "LatencyReport",
    "Manifest",
    "Plan",
    "Session",
    "Step",
    "Target",
    "TensorSpec",
    "__version__",
    "compile",
    "distil",
    "finalize",
    "open",
    "plan",
    "profile",
    "prune",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'edgekit' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
