"""What a rule and a finding are.

A rule is one entry of a table: operators, versions, ranks, types and attributes for which something does not
work, why, where it is said, and what to write instead. What such a table cannot say is a named predicate of
:mod:`edgekit.backends.tensorrt.rules.predicates`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from edgekit.backends.tensorrt.rules.site import Site
from edgekit.hosts.tensorrt_parser import parse

Severity = Literal["refused", "falls back", "slow"]

EVERY = ("*",)


@dataclass(frozen=True)
class Rule:
    """One thing that does not work. It holds for a node where all of its conditions do.

    Attributes:
        id: Such as ``"top_k.sorted"``.
        operators: Operators of the domain ``""`` that it is about, or :data:`EVERY`.
        reason: Why, as a sentence about the node.
        source: Where that is said: a key of :data:`SOURCES`.
        since: First version it holds in; from the beginning if empty.
        until: First version it no longer holds in; for ever if empty.
        ranks: Ranks of the first input it holds for; of all if empty.
        dtypes: Types of the first input it holds for; of all if empty.
        taken: Attributes with all values that are taken: it holds where one has another value.
        when: A predicate.
        rewrite: What to do about it.
        rewrite_pass: Name of the pass of :mod:`edgekit.passes` that does it.
        severity: ``"refused"``: it is not built, or what is built is wrong; ``"falls back"``: it runs in
            another precision or on another engine; ``"slow"``.
    """

    id: str
    operators: tuple[str, ...]
    reason: str
    source: str
    since: str = ""
    until: str = ""
    ranks: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = ()
    taken: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    when: Callable[[Site], bool] | None = None
    rewrite: str = ""
    rewrite_pass: str = ""
    severity: Severity = "refused"

    def holds(self, site: Site) -> bool:
        """Whether the node breaks it."""
        if self.operators != EVERY and site.node.op_type not in self.operators:
            return False
        if (self.since and site.version < parse(self.since)) or (
            self.until and site.version >= parse(self.until)
        ):
            return False
        if self.ranks and site.rank() not in self.ranks:
            return False
        if self.dtypes and site.dtype() not in self.dtypes:
            return False
        if self.taken and all(site.get(name, taken[0]) in taken for name, taken in self.taken.items()):
            return False
        return self.when is None or self.when(site)


@dataclass(frozen=True)
class Finding:
    """A node that breaks a rule.

    Attributes:
        node: Operator and name; empty where it is about the whole network.
        rule: The rule's ``id``.
        reason: Why.
        source: Where that is said.
        rewrite: What to do about it.
        rewrite_pass: The pass that does it; empty where edgekit has none.
        severity: As the rule's.
    """

    node: str
    rule: str
    reason: str
    source: str
    rewrite: str
    rewrite_pass: str
    severity: Severity

    @classmethod
    def of(cls, rule: Rule, node: str) -> Finding:
        """The finding that a node breaks the rule."""
        return cls(
            node, rule.id, rule.reason, SOURCES[rule.source], rule.rewrite, rule.rewrite_pass, rule.severity
        )


SOURCES = {
    "table": "github.com/onnx/onnx-tensorrt docs/operators.md at 8.5-GA, 8.6-GA, 10.1-GA, 10.15-GA, 11.1-GA",
    "changelog": "github.com/onnx/onnx-tensorrt docs/Changelog.md at 10.15-GA",
    "importers": "github.com/onnx/onnx-tensorrt builtin_op_importers.cpp at 8.5-GA, onnxOpImporters.cpp "
    "at 10.1-GA",
    "checkers": "github.com/onnx/onnx-tensorrt onnxOpCheckers.cpp at 10.1-GA",
    "header": "github.com/NVIDIA/TensorRT include/NvInfer.h at release/8.5, release/10.3 and release/11.1",
    "11.2": "github.com/NVIDIA/TensorRT/releases/tag/v11.2 and TensorRT's release notes 11.2.1: "
    "GridSample of rank 5",
    "grid names": "github.com/NVIDIA/TensorRT/issues/4646 and github.com/onnx/onnx-tensorrt/pull/1060",
    "deconvolution": "github.com/NVIDIA/TensorRT/issues/4668 and "
    "github.com/NVIDIA/Model-Optimizer/issues/688",
    "3-D int8": "github.com/NVIDIA/TensorRT/issues/1176, 1198, 1409, 1726 and 2125",
    "dla page": "docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/dla-layer-restrictions.html",
    "dla releases": "docs.nvidia.com/deeplearning/tensorrt/11.4.1/inference-library/work-with-dla.html",
    "dla operators": "github.com/NVIDIA/Deep-Learning-Accelerator-SW operators/README.md",
}
