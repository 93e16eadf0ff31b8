"""Bundles that need no vendor's library, for the tests of the bundle and of the runtime."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact, ArtifactInfo, Backend, NetworkSession
from edgekit.bundle import Bundle
from edgekit.dataset import DatasetRecord, FileDigest, InputFacts
from edgekit.golden import Golden, GoldenRecord
from edgekit.reports import (
    AccuracyLimits,
    AccuracyReport,
    Candidate,
    CaseRecord,
    CaseResult,
    ClassResult,
    GroupResult,
    LatencyReport,
    LayerReport,
    Machine,
    MetricReport,
    MetricValue,
    TaskLimits,
    TaskReport,
    TensorAccuracy,
    Tolerance,
)
from edgekit.spec import Array, Dim, TensorSpec
from edgekit.target import Target

TARGET = Target(
    name="bench",
    title="Test bench",
    arch="x86_64",
    device="cpu",
    memory_bytes=1 << 30,
    bandwidth_bytes_per_s=1e9,
    threads=1,
    backends=("stub",),
    precisions=("float32",),
)
IMAGE = TensorSpec("image", "float32", (1, 1, 4, Dim(4, 12, 4)), "NCHW", "intensity")
DOUBLED = replace(IMAGE, name="doubled")

Run = Callable[[Mapping[str, Array]], dict[str, Array]]


class StubSession(NetworkSession):
    """A network that is a Python function."""

    def __init__(self, info: ArtifactInfo, function: Run) -> None:
        super().__init__(info)
        self.function = function
        self.closed_times = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        return self.function(feeds)

    def close(self) -> None:
        self.closed_times += 1


class StubBackend(Backend):
    """Opens anything, counts it, and runs ``function``."""

    name = "stub"
    title = "Stub"

    def __init__(self) -> None:
        self.opened: list[Artifact] = []
        self.sessions: list[StubSession] = []
        self.function: Run = lambda feeds: {"doubled": feeds["image"] * np.float32(2)}

    def _refusals(self, graph: Any, target: Any) -> list[Any]:
        return []

    def _compile(self, model: Any, info: Any, target: Any, out: Any) -> None:
        raise AssertionError("nothing is compiled here")

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        self.opened.append(artifact)
        self.sessions.append(StubSession(artifact.info, self.function))
        return self.sessions[-1]


STUB = StubBackend()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> StubBackend:
    """A fresh backend ``"stub"`` in the registry."""
    backend = StubBackend()
    monkeypatch.setattr(f"{__name__}.STUB", backend)
    monkeypatch.setitem(BACKENDS._entries, "stub", f"{__name__}:STUB")
    return backend


def artifact(files: Mapping[str, bytes] | None = None, **changes: Any) -> Artifact:
    """A compiled network of these files."""
    files = {"model.bin": bytes(range(48)), "model.xml": b"<net/>"} if files is None else files
    info = ArtifactInfo(
        backend="stub",
        form="engine",
        files=tuple(files),
        inputs=(IMAGE,),
        outputs=(DOUBLED,),
        target=TARGET.name,
        built_with={},
        source_digest="0" * 64,
    )
    return Artifact(replace(info, **changes), files)


def small(files: Mapping[str, bytes] | None = None, **changes: Any) -> Bundle:
    """A bundle without reports."""
    network = artifact(files, **changes)
    bundle = Bundle.of(
        network, name="double", target=TARGET, inputs=network.info.inputs, results=network.info.outputs
    )
    # Bytes are compared with recorded ones, whatever the version of edgekit.
    return replace(bundle, manifest=replace(bundle.manifest, edgekit="0.1.0"))


def first() -> Bundle:
    """A bundle with every field of the first manifests set, to values that are hard to write."""
    accuracy = AccuracyReport(
        reference="pytorch",
        inputs="generated: seed 0",
        tensors=(TensorAccuracy("doubled", 1e-7, 2.5e-8, math.inf, 1.0, True),),
        limits=AccuracyLimits(min_snr_db=40.0),
    )
    machine = Machine("CPU", "x86_64", 2, ("avx2",), 1 << 33, "Linux 6", "3.11", 0.1, {"numpy": "2.4"})
    latency = LatencyReport(
        samples_s=(0.1, 0.2, 1 / 3),
        load_s=1e-3,
        first_run_s=0.5,
        warmup_s=(0.3,),
        settled=True,
        stages_s={"network": (0.1, 0.2, 0.3)},
        peak_memory_bytes=123456789,
        threads=1,
        shapes={"image": (1, 1, 4, 8)},
        machine=machine,
    )
    bundle = small()
    return replace(
        bundle,
        manifest=replace(
            bundle.manifest,
            cpu_features=("avx2",),
            intended_use='Nur für "Forschung" – 研究用\n\x1b',
            history=("loaded",),
            notes=("a note",),
            accuracy=accuracy,
            latency=latency,
            candidates=(
                Candidate("stub", "chosen", "", 0.2, 0.3, 3, math.inf, 1.5, 54),
                Candidate("other", "refused", "it said no"),
            ),
        ),
    )


def full() -> Bundle:
    """A bundle with every field of the manifest set, those that came later as well."""
    bundle = first()
    calibration = DatasetRecord(
        sources=("image: scans",),
        samples=9,
        patches=3,
        seed=0,
        limit=0,
        files=(FileDigest("a/1.dcm", 1 << 20, "1" * 64, "image"),),
        inputs=(InputFacts("image", 3, 0, -1024.0, math.inf, (-1000.0, 0.1, 300.0), ("CT",)),),
    )
    layers = (
        LayerReport("stem", "Conv", "int8", -1.5, 3.25, 0.001, 41.5),
        LayerReport("head", "Conv", "float32", reason="int8 is no faster"),
    )
    manifest = bundle.manifest
    candidates = (
        replace(manifest.candidates[0], precision="int8", values=(MetricValue("dice", 0.75),)),
        *manifest.candidates[1:],
    )
    return replace(
        bundle,
        manifest=replace(
            manifest,
            candidates=candidates,
            precision="mixed",
            calibration=calibration,
            layers=layers,
            task=task_report(),
        ),
    )


def several(**second: Any) -> Bundle:
    """A bundle of two networks, ``"first"`` and ``"second"``, with a golden case of shape 1x1x4x8."""
    image = np.arange(32, dtype=np.float32).reshape(1, 1, 4, 8)
    golden = Golden(
        GoldenRecord("pytorch", "generated: seed 0", AccuracyLimits(min_snr_db=40.0)),
        {"image": image},
        {"doubled": 2 * image},
    )
    networks = (
        artifact({"engine.bin": b"first"}, name="first", device="cuda", proven=False),
        artifact({"engine.bin": b"second"}, **{"name": "second", **second}),
    )
    return Bundle.of(
        *networks, name="double", target=TARGET, inputs=(IMAGE,), results=(DOUBLED,), golden=golden
    )


def task_report() -> TaskReport:
    """A report of one metric that failed, on three cases of which one crashed."""
    limits = TaskLimits(
        max_drop=Tolerance(0.01), max_case_drop=Tolerance(0.1, relative=True), min_cases=3, confidence=0.9
    )
    metric = MetricReport(
        metric="dice",
        result="doubled",
        better="higher",
        unit="",
        reference="labels",
        options={"channels": "auto", "scores": "logits"},
        limits=limits,
        groups=(
            GroupResult("all", "", 2, 0.875, 0.75, 0.125, -0.01, 0.26),
            GroupResult("class", "1", 2, 0.9, 0.9, 0.0, 0.0, 0.0),
            GroupResult("class", "2", 1, 0.8, 0.5, 0.3),
            GroupResult("group", "site A", 1, 0.85, 0.7, 0.15),
        ),
        cases=(
            CaseResult(
                "p01",
                0.85,
                0.7,
                0.15,
                (ClassResult("1", 0.9, 0.9, 0.0), ClassResult("2", 0.8, 0.5, 0.3)),
            ),
            CaseResult("p02", 0.9, 0.8, 0.1),
            CaseResult("<p03>", 0.7, math.nan, math.nan, error="the candidate crashed: ZeroDivisionError"),
        ),
        notes=("dice: scores of 'doubled' are taken as logits",),
        failures=("dice falls from 0.875 to 0.75, by 0.125 over all cases; allowed are 0.01",),
    )
    return TaskReport(
        source="cases.csv",
        sha256="2" * 64,
        baseline="float32 pytorch",
        cases=tuple(CaseRecord(c.case, str(i) * 64, ("site A",)) for i, c in enumerate(metric.cases)),
        metrics=(metric,),
        max_latency_s=0.25,
        latency_s=0.2,
        max_size_bytes=1 << 20,
        size_bytes=54,
        failures=("case '<p03>': the candidate crashed: ZeroDivisionError",),
    )
