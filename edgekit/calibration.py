"""Run a network on a data set and see which values its tensors take, in bounded memory.

A child process reads the samples one after the other, runs the steps before the network and the network, and
keeps histograms, never arrays. It is killed when it takes more than the cap. Where the tensors that are
looked at would not fit together, they are looked at in groups, each in a run of its own over all samples: how
many there are changes how long it takes and nothing else.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit import isolation, runtime, schema
from edgekit.backends import onnxruntime
from edgekit.dataset import Dataset
from edgekit.errors import CompileError, InternalError, LimitError, PassError, SpecError
from edgekit.graph import values
from edgekit.graph.graph import Graph
from edgekit.graph.opset import DOMAIN
from edgekit.graph.values import Size
from edgekit.passes.ranges import Observer, Ranges
from edgekit.spec import Array, Step, TensorSpec, format_dims

MEMORY_BYTES = 1 << 30

# An interpreter with NumPy, ONNX Runtime and the readers of images; beside it what nobody counts.
_PROGRAM_BYTES = 112 << 20
# Reading a scaled image takes its voxels once more.
_COPIES_OF_AN_IMAGE = 2
# Large arrays go back to the system as soon as they are freed, rather than into gaps of the heap.
_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_ARENA_MAX": "2"}


@dataclass(frozen=True)
class Observation:
    """What was seen, and what it took.

    Attributes:
        ranges: The values' ranges.
        groups: How many values were looked at in each run.
        peak_bytes: Largest resident memory of the children.
        elapsed_s: Seconds of all runs together.
    """

    ranges: Ranges
    groups: tuple[int, ...]
    peak_bytes: int
    elapsed_s: float


def calibrate(
    graph: Graph,
    dataset: Dataset,
    *,
    memory_limit_bytes: int = MEMORY_BYTES,
    time_limit_s: float = 3600.0,
    threads: int = 0,
    on_event: Callable[[str], None] = lambda event: None,
) -> Ranges:
    """The ranges of all float32 values of a graph: its network's inputs and what its nodes make.

    The same data give the same ranges, bit for bit, whatever the cap.

    Args:
        graph: The graph in float32, computed literally (see :mod:`edgekit.probe`).
        dataset: Samples for ``graph.given``.
        memory_limit_bytes: Cap on the resident memory of the process that looks.
        time_limit_s: Cap on its time, all runs together.
        threads: Threads to use; 0 for all that the process may use.
        on_event: Called with one line at the beginning of each run.

    Raises:
        LimitError: Not even one value fits the cap, or time ran out.
        InputError, SpecError: The data set is refused; see :mod:`edgekit.dataset`.
        PassError: A value is not finite.
    """
    return observe(
        graph,
        dataset,
        activations(graph),
        memory_limit_bytes=memory_limit_bytes,
        time_limit_s=time_limit_s,
        threads=threads,
        on_event=on_event,
    ).ranges


def channel_means(
    graph: Graph,
    dataset: Dataset,
    names: Sequence[str],
    *,
    memory_limit_bytes: int = MEMORY_BYTES,
    time_limit_s: float = 3600.0,
    threads: int = 0,
) -> dict[str, npt.NDArray[np.float64]]:
    """The mean of each channel (axis 1) of named values over all samples, by name.

    With the same arguments as :func:`calibrate`, for a graph of any precision.

    Raises:
        PassError: A value has no axis of channels, or its length varies.
        EdgekitError: As :func:`calibrate`.
    """
    ranges = observe(
        graph,
        dataset,
        names,
        memory_limit_bytes=memory_limit_bytes,
        time_limit_s=time_limit_s,
        threads=threads,
    ).ranges
    means = {}
    for name in names:
        mean = ranges[name].channel_mean
        if mean is None:
            raise PassError("want a value with channels along axis 1", where=f"value {name!r}")
        means[name] = mean
    return means


def activations(graph: Graph) -> tuple[str, ...]:
    """Names of the float32 values that depend on the samples, in the order in which they are computed."""
    made = [
        (str(value.name), value.dtype)
        for node in graph.model.graph
        if (node.domain, node.op_type) != ("", "Constant")
        for value in node.outputs
        if value.name
    ]
    known = values.sizes(graph)
    names = [spec.name for spec in graph.inputs if spec.dtype == "float32"]
    for name, dtype in made:
        told = known[name].dtype if name in known else str(dtype).lower()
        if told in ("float32", "float") and (name not in known or 0 not in known[name].shape):
            names.append(name)
    return tuple(names)


def observe(
    graph: Graph,
    dataset: Dataset,
    names: Sequence[str],
    *,
    memory_limit_bytes: int = MEMORY_BYTES,
    time_limit_s: float = 3600.0,
    threads: int = 0,
    on_event: Callable[[str], None] = lambda event: None,
) -> Observation:
    """The ranges of named floating-point values, and what looking at them took; see :func:`calibrate`."""
    if {spec.name for spec in dataset.specs} != {spec.name for spec in graph.given}:
        raise SpecError(
            f"the data set is for {', '.join(s.name for s in dataset.specs)}, the model takes "
            f"{', '.join(s.name for s in graph.given)}",
            where="calibration data",
        )
    memory = _Memory(graph, dataset, memory_limit_bytes)
    pending = memory.groups(list(dict.fromkeys(names)))
    started = time.monotonic()
    ranges, done, peak_bytes = Ranges.of([]), list[int](), 0
    while pending:
        group = pending.pop(0)
        left = f", {sum(map(len, pending))} to come" if pending else ""
        on_event(f"calibrate on {len(dataset)} samples: {len(group)} values{left}")
        left_s = max(0.0, time_limit_s - (time.monotonic() - started))
        try:
            found, peak = _look(graph, dataset, group, isolation.Limits(left_s, memory_limit_bytes), threads)
        except LimitError as refused:
            if "memory" not in refused.message:
                raise
            if len(group) == 1:
                raise memory.too_small(group[0]) from refused
            # What the sizes did not tell: the runtime's own buffers.
            pending[:0] = [group[: len(group) // 2], group[len(group) // 2 :]]
            continue
        ranges, peak_bytes = ranges.merged(found), max(peak_bytes, peak)
        done.append(len(group))
    in_order = Ranges.of([ranges[name] for name in dict.fromkeys(names)])
    return Observation(in_order, tuple(done), peak_bytes, time.monotonic() - started)


def _look(
    graph: Graph, dataset: Dataset, names: Sequence[str], limits: isolation.Limits, threads: int
) -> tuple[Ranges, int]:
    """One run over all samples in a child: the ranges, and the child's peak memory."""
    inputs = {spec.name for spec in graph.inputs}
    inner = [name for name in names if name not in inputs]
    model = values.with_half_kept(values.with_outputs(graph, inner, alone=True)) if inner else None
    outcome = isolation.run(
        "edgekit.calibration:_job",
        {
            "plan": dataset.plan(),
            "inputs": [schema.encode(spec) for spec in graph.inputs],
            "before": [schema.encode(step) for step in graph.before],
            "names": list(names),
            "threads": threads,
            "own": model is not None and DOMAIN in model.model.opset_imports,
        },
        files={"model.onnx": model.to_bytes()} if model is not None else {},
        limits=limits,
        what="calibrating",
        error=CompileError,
        environment=_ENVIRONMENT,
    )
    dataset.learn(outcome.value["plan"])
    return Ranges.unpack(outcome.value["ranges"], outcome.arrays), outcome.peak_bytes


def _job(request: isolation.Request) -> tuple[Any, dict[str, Array]]:
    """In the child: look at the named values of every sample."""
    arguments = request.arguments
    dataset = Dataset.of_plan(arguments["plan"])
    decode = {"error": InternalError, "where": "calibration"}
    specs = [schema.decode(TensorSpec, one, **decode) for one in arguments["inputs"]]  # type: ignore[arg-type]
    before = [schema.decode(Step, one, **decode) for one in arguments["before"]]  # type: ignore[arg-type]
    threads, path = arguments["threads"], request.files.get("model.onnx")
    network = onnxruntime.literal(path, own_operators=arguments["own"], threads=threads) if path else None
    observers = [Observer(name) for name in arguments["names"]]
    for sample in dataset:
        tensors = runtime.run_steps(before, sample.feeds, threads=threads)
        found = {spec.name: spec.check(tensors[spec.name]) for spec in specs}
        if network is not None:
            found.update(network.run({name: found[name] for name in network.inputs}))
        for observer in observers:
            observer.add(found.pop(observer.name))
    value, arrays = Ranges.of([observer.range() for observer in observers]).pack()
    return {"ranges": value, "plan": dataset.plan()}, arrays


class _Memory:
    """How much memory looking at values takes: of the runtime, what shapes tell.

    Values that a run looks at stay until it ends; the others until their last use.
    """

    def __init__(self, graph: Graph, dataset: Dataset, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._sizes = values.sizes(graph)
        self._nodes = [
            (tuple(_names(node.inputs)), tuple(_names(node.outputs)), _workspace_bytes(node, self._sizes))
            for node in graph.model.graph
        ]
        self._producer = {name: i for i, (_, outputs, _) in enumerate(self._nodes) for name in outputs}
        weights = sum(
            value.const_value.nbytes
            for value in graph.model.graph.initializers.values()
            if value.const_value is not None
        )
        # Once in the file's form, once as the runtime keeps them.
        self._fixed_bytes = _PROGRAM_BYTES + 2 * weights
        self._fixed_bytes += _COPIES_OF_AN_IMAGE * dataset.largest_case_bytes
        self._fixed_bytes += sum(spec.largest_bytes for spec in (*graph.given, *graph.inputs))

    def groups(self, names: Sequence[str]) -> list[list[str]]:
        """The values in groups that fit the limit, in order.

        Raises:
            LimitError: The value that takes most does not fit even if nothing but the network is counted.
        """
        groups: list[list[str]] = []
        for name in names:
            if self._needed([name]) - self._fixed_bytes > self.limit_bytes:
                raise self.too_small(name)
            if groups and self._needed([*groups[-1], name]) <= self.limit_bytes:
                groups[-1].append(name)
            else:
                groups.append([name])
        return groups

    def too_small(self, name: str) -> LimitError:
        """The error for a limit that does not let one value be looked at."""
        shape = format_dims(self._sizes[name].shape) if name in self._sizes else "of unknown shape"
        needed_mib = math.ceil(max(self._needed([name]), 1.25 * self.limit_bytes) / (1 << 20))
        return LimitError(
            f"calibrating does not fit {self.limit_bytes >> 20} MiB of memory, with one value at a time",
            where=f"value {name!r} ({shape})",
            hint=f"--calibration-memory-mib {needed_mib}, or smaller images with --shape",
        )

    def _needed(self, names: Sequence[str]) -> int:
        """Bytes of a run that computes these values and keeps them."""
        wanted = self._run_for(names)
        last = {name: index for index in wanted for name in self._nodes[index][0]}
        kept, alive, peak = set(names), 0, 0
        for index in wanted:
            inputs, outputs, workspace = self._nodes[index]
            alive += sum(self._bytes(name) for name in outputs)
            peak = max(peak, alive + workspace)
            done = {name for name in inputs if last[name] == index and name in self._producer}
            done |= {name for name in outputs if name not in last}
            alive -= sum(self._bytes(name) for name in done - kept)
        return self._fixed_bytes + peak

    def _run_for(self, names: Iterable[str]) -> list[int]:
        """Numbers of the nodes that these values depend on, in order."""
        found: set[int] = set()
        pending = [self._producer[name] for name in names if name in self._producer]
        while pending:
            index = pending.pop()
            if index not in found:
                found.add(index)
                pending += [self._producer[n] for n in self._nodes[index][0] if n in self._producer]
        return sorted(found)

    def _bytes(self, name: str) -> int:
        size = self._sizes.get(name)
        return size.nbytes if size is not None else 0


def _names(found: Iterable[Any]) -> Iterator[str]:
    return (str(value.name) for value in found if value is not None and value.name)


def _workspace_bytes(node: Any, sizes: Mapping[str, Size]) -> int:
    """What ONNX Runtime takes besides inputs and outputs: a transposed convolution's columns."""
    if node.op_type != "ConvTranspose" or node.inputs[1] is None:
        return 0
    source, weight = (sizes.get(str(value.name)) for value in node.inputs[:2])
    if source is None or weight is None:
        return 0
    return 4 * math.prod(weight.shape[1:]) * math.prod(source.shape[2:])
