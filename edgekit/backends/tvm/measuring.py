"""Measure kernels beside each other, in a child process: on this machine, or on a device by TVM's RPC server.

All candidates are compiled into one library. Each is run once, and one whose result is not the first one's to
the bit is refused; then they take turns, on one thread, and the least of each one's times counts. Here a time
is the processor's, which other programs disturb least; a device's is what its clock shows.
"""

from __future__ import annotations

import platform
import socket
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from numpy.typing import NDArray

from edgekit import isolation, schema
from edgekit.backends.tvm import convolution, matmul, tiles
from edgekit.backends.tvm.elementwise import Output
from edgekit.backends.tvm.loops import Function, product
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import Tensor
from edgekit.errors import CompileError, InternalError, UnavailableError, UsageError
from edgekit.hosts import build
from edgekit.hosts.build import Platform

Arrays = list[NDArray[Any]]

_SAMPLE_S = 0.01  # of one turn: long beside the clock's steps
_ROUNDS = 9
_FAR = 1.25  # who is so much behind after two turns is not called again
_MOST_CALLS = 1000
_SESSION_S = 600
_ANSWER_S = 10.0


@dataclass(frozen=True)
class Problem:
    """What is measured.

    Attributes:
        family: Of kernels: ``"convolution"``, ``"matmul"`` or ``"dense"``.
        problem: As the family knows it.
        tensors: What the family's rule is asked with.
    """

    family: str
    problem: Any
    tensors: tuple[Tensor, ...]

    @property
    def products(self) -> int:
        """Multiplications of one call, about."""
        first, second = self.tensors
        if self.family != "convolution":
            batch, rows, depth, columns = self.problem.lengths(first.shape, second.shape)
            return product((*batch, rows, depth, columns))
        many, few = (first, second) if self.problem.transposed else (second, first)
        sums = product((*many.shape, *self.problem.kernel))
        return sums * few.shape[1] // int(self.problem.groups)


@dataclass(frozen=True)
class Runner:
    """Where kernels are measured.

    Attributes:
        address: ``"host:port"`` of TVM's RPC server on a device; empty for this machine.
        system: What the device runs; this machine's by default.
        time_s: Of a clock on the wall, for one problem; whoever takes longer is stopped.
    """

    address: str = ""
    system: Platform | None = None
    time_s: float = 120.0

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if self.address and not (host and port.isdecimal() and 0 < int(port) < 1 << 16):
            raise UsageError(
                f"want the address of an RPC server as HOST:PORT, got {self.address!r}",
                where="rpc",
                hint="rpc=192.168.1.20:9090",
            )

    @property
    def device(self) -> str:
        """In words."""
        return f"RPC server {self.address}" if self.address else f"{platform.machine()}, this machine"

    def measure(self, what: Problem, plans: Sequence[Any], processor: Processor) -> list[float | None]:
        """Seconds of one call on one thread, for each plan; ``None`` where the result is not the first one's.

        Args:
            what: The problem.
            plans: Candidates; the first one is the rule's.
            processor: What they are compiled for.

        Raises:
            CompileError: The child crashed.
            LimitError: It took too long.
            UnavailableError: The device cannot be reached.
        """
        wanted = self.system or Platform.here()
        outcome = isolation.run(
            "edgekit.backends.tvm.measuring:job",
            {
                "family": what.family,
                "problem": schema.encode(what.problem),
                "tensors": [schema.encode(tensor) for tensor in what.tensors],
                "plans": [schema.encode(plan) for plan in plans],
                "processor": schema.encode(replace(processor, tuned=None)),
                "address": self.address,
                "system": [wanted.arch, wanted.glibc],
            },
            limits=isolation.Limits(self.time_s),
            what=f"measuring on {self.device}",
            error=CompileError,
            environment={"TVM_NUM_THREADS": "1"},
        )
        return [None if value is None else float(value) for value in outcome.value]


def job(request: isolation.Request) -> tuple[Any, dict[str, Any]]:
    """The child's side of :meth:`Runner.measure`."""
    told = request.arguments
    make = BENCHES[told["family"]]

    def decoded(cls: type, data: Any) -> Any:
        return schema.decode(cls, data, error=UsageError, where=told["family"])

    tensors = tuple(decoded(Tensor, data) for data in told["tensors"])
    problem = decoded(make.problem, told["problem"])
    plans = [decoded(make.plan, data) for data in told["plans"]]
    processor = decoded(Processor, told["processor"])
    bench = make.of(problem, tensors, plans)
    wanted = Platform(*told["system"])
    machine = _Here if not told["address"] else _There
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "candidates.so")
        _compile(bench.functions, library, processor, wanted)
        return race(machine(library, bench, told["address"]).calls), {}


@dataclass(frozen=True)
class Bench:
    """Candidates and what they are called with.

    Attributes:
        functions: One for each plan.
        inputs: Of each.
        result: Of all.
    """

    functions: list[Function]
    inputs: list[Arrays]
    result: Tensor


@dataclass(frozen=True)
class _Family:
    problem: type
    plan: type
    of: Callable[[Any, tuple[Tensor, ...], Sequence[Any]], Bench]


def _convolutions(problem: Any, tensors: tuple[Tensor, ...], plans: Sequence[Any]) -> Bench:
    x, result = tensors
    inputs, outputs = x.shape[1], result.shape[1]
    shape = (inputs, outputs // problem.groups) if problem.transposed else (outputs, inputs // problem.groups)
    weights, image = _random(1, *shape, *problem.kernel), x.packed(_random(0, *x.shape))
    functions, arrays = [], []
    for number, plan in enumerate(plans):
        functions.append(convolution.convolution(_name(number), problem, x, Output(result), plan))
        arrays.append([image, convolution.packed(problem, weights, x, result, plan.vectors)])
    return Bench(functions, arrays, result)


def _products(problem: Any, tensors: tuple[Tensor, ...], plans: Sequence[Any]) -> Bench:
    a, b = tensors
    result = _product_result(problem, a, b)
    both = [_random(0, *a.shape), _random(1, *b.shape)]
    functions = [
        matmul.matmul(_name(number), problem, a, b, Output(result), plan) for number, plan in enumerate(plans)
    ]
    return Bench(functions, [both] * len(plans), result)


def _dense_layers(problem: Any, tensors: tuple[Tensor, ...], plans: Sequence[Any]) -> Bench:
    a, b = tensors
    result = _product_result(problem, a, b)
    left, right = _random(0, *a.shape), _random(1, *b.shape)
    functions = [
        matmul.dense(_name(number), problem, a, b, Output(result), plan) for number, plan in enumerate(plans)
    ]
    return Bench(functions, [[left, matmul.weights(right, plan)] for plan in plans], result)


def _product_result(problem: matmul.Matmul, a: Tensor, b: Tensor) -> Tensor:
    batch, rows, _, columns = problem.lengths(a.shape, b.shape)
    return Tensor((*batch, rows, columns))


def _random(seed: int, *shape: int) -> NDArray[Any]:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def _name(number: int) -> str:
    return f"candidate_{number}"


# The families whose rules have a choice.
BENCHES = {
    "convolution": _Family(tiles.Convolution, tiles.Tiling, _convolutions),
    "matmul": _Family(matmul.Matmul, matmul.Tiling, _products),
    "dense": _Family(matmul.Matmul, matmul.Tiling, _dense_layers),
}


def _compile(functions: Sequence[Function], out: Path, processor: Processor, wanted: Platform) -> None:
    """One library with all functions, linked as bundles' are."""
    options = {} if wanted.arch == platform.machine() else {"mtriple": f"{wanted.arch}-linux-gnu"}
    named = {_name(n): f.with_attr("global_symbol", _name(n)) for n, f in enumerate(functions)}
    executable = tvm.compile(tvm.IRModule(named), tvm.target.Target(processor.llvm(options)))

    def link(path: str, objects: list[str], options: Sequence[str] = ()) -> None:
        build.link(objects, Path(path), wanted, ["-fPIC", *options])

    executable.export_library(str(out), fcompile=link)


@dataclass(frozen=True)
class Call:
    """A candidate, ready to run.

    Attributes:
        result: Runs it and gives what it wrote.
        seconds: Of so many calls.
    """

    result: Callable[[], bytes]
    seconds: Callable[[int], float]


class _Here:
    """A library in this process."""

    def __init__(self, library: Path, bench: Bench, address: str) -> None:
        self._module = tvm.runtime.load_module(str(library))
        tvm.get_global_func("runtime.config_threadpool")(1, 1)
        self._memory = tvm.runtime.tensor(np.empty(bench.result.memory, bench.result.dtype))
        self.calls = [self._call(number, arrays) for number, arrays in enumerate(bench.inputs)]

    def _call(self, number: int, arrays: Arrays) -> Call:
        function, memory = self._module[_name(number)], self._memory
        arguments = [*map(tvm.runtime.tensor, arrays), memory]

        def result() -> bytes:
            memory.copyfrom(np.zeros(memory.shape, memory.dtype))
            function(*arguments)
            return bytes(memory.numpy().tobytes())

        def seconds(calls: int) -> float:
            started = time.thread_time_ns()
            for _ in range(calls):
                function(*arguments)
            return (time.thread_time_ns() - started) * 1e-9

        return Call(result, seconds)


class _There:
    """A library on a device."""

    def __init__(self, library: Path, bench: Bench, address: str) -> None:
        from tvm import rpc

        host, _, port = address.rpartition(":")
        try:
            # TVM would wait as long as the system does for a host that is silent.
            socket.create_connection((host, int(port)), _ANSWER_S).close()
            session = rpc.connect(host, int(port), session_timeout=_SESSION_S)
        except Exception as error:
            raise UnavailableError(
                "no RPC server of TVM answers",
                where=address,
                hint=f"on the device: python -m tvm.exec.rpc_server --host 0.0.0.0 --port {port}",
            ) from error
        session.upload(str(library))
        self._module = session.load_module(library.name)
        session.get_function("runtime.config_threadpool")(1, 1)
        self._device = session.cpu(0)
        self._bench = bench
        self._memory = tvm.runtime.tensor(np.zeros(bench.result.memory, bench.result.dtype), self._device)
        self._sent: dict[int, Any] = {}
        self.calls = [self._call(number, arrays) for number, arrays in enumerate(bench.inputs)]

    def _call(self, number: int, arrays: Arrays) -> Call:
        function, memory = self._module[_name(number)], self._memory
        arguments = [*map(self._send, arrays), memory]

        def result() -> bytes:
            memory.copyfrom(np.zeros(memory.shape, memory.dtype))
            function(*arguments)
            return bytes(memory.numpy().tobytes())

        def seconds(calls: int) -> float:
            evaluator = self._module.time_evaluator(_name(number), self._device, number=calls, repeat=1)
            return float(evaluator(*arguments).mean) * calls

        return Call(result, seconds)

    def _send(self, array: NDArray[Any]) -> Any:
        """The array on the device; the same one is sent once."""
        if id(array) not in self._sent:
            self._sent[id(array)] = tvm.runtime.tensor(array, self._device)
        return self._sent[id(array)]


def race(calls: Sequence[Call]) -> list[float | None]:
    """The least time of one call of each; ``None`` for those whose result is not the first one's.

    Args:
        calls: The candidates.

    Raises:
        InternalError: There is none.
    """
    if not calls:
        raise InternalError("want candidates, got none")
    right = calls[0].result()
    running = [n for n, call in enumerate(calls) if n == 0 or call.result() == right]
    # The first call of all found the caches empty.
    once = {number: calls[number].seconds(1) for number in running}
    count = {n: max(1, min(_MOST_CALLS, round(_SAMPLE_S / max(s, 1e-9)))) for n, s in once.items()}
    least = dict.fromkeys(running, float("inf"))
    for turn in range(_ROUNDS):
        for number in running:
            least[number] = min(least[number], calls[number].seconds(count[number]) / count[number])
        if turn >= 1:
            limit = _FAR * min(least.values())
            running = [n for n in running if n == 0 or least[n] <= limit]
    return [least.get(number) for number in range(len(calls))]
