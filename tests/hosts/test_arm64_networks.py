"""Whole networks, compiled for a board's Arm processor and run in an emulated one, against PyTorch.

They are those of benchmarks/bench_tvm.py in small sizes, and one of attention. One process of the machine
runs all.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from hosts import arm64, arm64_jobs

from edgekit import target
from edgekit.backends.tvm.compiler import export
from edgekit.backends.tvm.processor import Processor
from edgekit.hosts import elf
from edgekit.hosts.compilers import Platform

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
BOARD = target.find("raspberry-pi-5")
NETWORKS = (
    *("register3d", "denoise2d", "unet2d_batch", "unet2d_instance", "attention_unet"),
    *("densenet121", "edsr", "dncnn", "unet3d", "segresnet3d"),
)
ATTENTION = "attention"
THREADS = (1, 2)
# Of the largest value.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Ran:
    """A network that ran.

    Attributes:
        subject: The network, as the benchmark takes it in.
        library: What was compiled.
        outputs: Of each run, by name.
    """

    subject: Any
    library: Path
    outputs: list[dict[str, np.ndarray[Any, Any]]]


@pytest.fixture(scope="module")
def bench() -> Iterator[SimpleNamespace]:
    """The benchmarks' modules, which are scripts and not a package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import bench_tvm
        import tvm_networks

        yield SimpleNamespace(tvm=bench_tvm, networks=tvm_networks.NETWORKS)
        for name in {path.stem for path in BENCHMARKS.iterdir()} & set(sys.modules):
            del sys.modules[name]


@pytest.fixture(scope="module")
def ran(bench: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ran]:
    """All networks after a run by one thread and one by two."""
    if reason := arm64.missing():
        pytest.skip(reason)
    subjects, models = {}, []
    for name in (*NETWORKS, ATTENTION):
        if name == ATTENTION:
            module, inputs = attention()
        else:
            network = bench.networks[name]
            module, inputs = network.build(quick=True), network.inputs(quick=True)
        subject = bench.tvm.take_in(name, module, inputs, BOARD)
        proto = ir.to_proto(subject.graph.model)
        feed = {value.name: subject.feeds[value.name] for value in proto.graph.input}
        models.append(arm64_jobs.Model(name, proto, (feed,) * len(THREADS)))
        subjects[name] = subject
    options = {"threads": THREADS}
    folder = tmp_path_factory.mktemp("networks")
    got = arm64_jobs.run("tvm", models, folder, options=options, compile_model=compile_model)
    found = {}
    for model in models:
        names = [value.name for value in model.proto.graph.output]
        runs = [dict(zip(names, outputs, strict=True)) for outputs in got[model.name]]
        found[model.name] = Ran(subjects[model.name], folder / f"{model.name}.so", runs)
    return found


def attention() -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    """A block of a transformer: products of computed matrices, softmax, layer normalisation, GELU."""
    torch.manual_seed(0)
    block = torch.nn.TransformerEncoderLayer(
        48, 3, 90, dropout=0, activation="gelu", batch_first=True, norm_first=True
    )
    return block.eval(), {"src": torch.randn(2, 37, 48)}


def compile_model(proto: onnx.ModelProto, path: Path) -> None:
    options = BOARD.options_for("tvm")
    export(ir.from_proto(proto), path, options, Platform.of(BOARD), Processor.of(BOARD))


def test_the_list_is_the_benchmark_s(bench: SimpleNamespace) -> None:
    assert set(NETWORKS) == set(bench.networks)


@pytest.mark.parametrize("name", (*NETWORKS, ATTENTION))
def test_pytorchs_numbers(name: str, bench: SimpleNamespace, ran: dict[str, Ran]) -> None:
    subject, outputs = ran[name].subject, ran[name].outputs
    assert bench.tvm.difference(subject.results(outputs[0]), subject.wanted) < TOLERANCE


@pytest.mark.parametrize("name", (*NETWORKS, ATTENTION))
def test_one_thread_and_two_give_the_same_bits(name: str, ran: dict[str, Ran]) -> None:
    one, two = ran[name].outputs
    assert {key: array.tobytes() for key, array in one.items()} == {
        key: array.tobytes() for key, array in two.items()
    }


def test_the_libraries_call_no_mathematics(ran: dict[str, Ran]) -> None:
    """All functions are vectors' own."""
    wanted = {symbol.name for each in ran.values() for symbol in elf.read(each.library).wanted}
    assert {name for name in wanted if not name.startswith("TVM")} <= {"memset", "memcpy"}
