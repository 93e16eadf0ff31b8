"""How many multiply-adds a second the machine really does: chains of them in registers, timed.

Layers are judged against this and not against a data sheet, whose clock a shared or a warm machine does not
keep. The few lines of C are compiled for the machine at hand, once for each width of its vectors.
"""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from _harness import timed

from edgekit import machine
from edgekit.errors import UnavailableError

# Multiply-adds of one part, some 2 ms: short enough to lie between two turns of whatever else runs here.
PART, PARTS = 100_000_000, 20
# Chains enough for the latency times the units of every processor so far, and few enough for its registers.
_SOURCE = r"""
typedef float vector __attribute__((vector_size(BYTES)));

float chains(long rounds, float factor, float summand) {
    vector sums[CHAINS], x = {0}, y = {0};
    x += factor;
    y += summand;
    for (int i = 0; i < CHAINS; ++i) sums[i] = y * (float)i;
    for (long round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
        for (int i = 0; i < CHAINS; ++i) sums[i] = sums[i] * x + y;
        __asm__ volatile("" : "+RW"(x));
    }
    float total = 0;
    for (int i = 0; i < CHAINS; ++i)
        for (int lane = 0; lane < BYTES / 4; ++lane) total += sums[i][lane];
    return total;
}
"""
_FLOAT_BYTES = 4


def per_second(threads: int) -> float:
    """Multiply-adds a second of that many threads at once, with the vectors that are fastest here.

    Each thread does the same work again and again on a core of its own; its best time counts.

    Raises:
        UnavailableError: There is no C compiler.
    """
    return max(_with_vectors(width, threads) for width in widths())


def _with_vectors(vector_bytes: int, threads: int) -> float:
    chains = _compiled(vector_bytes)
    in_a_round = _chain_count(vector_bytes) * vector_bytes // _FLOAT_BYTES
    rounds = PART // in_a_round
    speeds: list[float] = []

    def work(core: int) -> None:
        # A new thread may share its maker's core for longer than all this takes.
        os.sched_setaffinity(0, {core})
        least_ns = min(timed(lambda: chains(rounds, 0.5, 1.0))[0] for _ in range(PARTS))
        speeds.append(1e9 * rounds * in_a_round / least_ns)

    cores = sorted(os.sched_getaffinity(0))[:threads]
    workers = [threading.Thread(target=work, args=(core,)) for core in cores]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(speeds)


def widths() -> tuple[int, ...]:
    """Bytes of the machine's vectors."""
    features = machine.record().features
    if platform.machine() == "aarch64":
        return (16,)
    return (32, 64) if "avx512f" in features else (32,)


def _chain_count(vector_bytes: int) -> int:
    """AVX2 has 16 registers, two of which hold the operands; AVX-512 and NEON have 32."""
    return 12 if vector_bytes == 32 else 24


@functools.cache
def _compiled(vector_bytes: int) -> Callable[[int, float, float], float]:
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder, "chains.c"), Path(folder, "chains.so")
        constraint = "w" if platform.machine() == "aarch64" else "v" if vector_bytes == 64 else "x"
        source.write_text(_SOURCE.replace("RW", constraint), encoding="utf-8")
        command = ["cc", "-O2", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
        sizes = [f"-DBYTES={vector_bytes}", f"-DCHAINS={_chain_count(vector_bytes)}"]
        try:
            subprocess.run([*command, *sizes, source, "-o", library], check=True, capture_output=True)
        except FileNotFoundError:
            raise UnavailableError("there is no C compiler", where="cc", hint="apt-get install gcc") from None
        function = ctypes.CDLL(str(library)).chains
    function.argtypes, function.restype = (ctypes.c_long, ctypes.c_float, ctypes.c_float), ctypes.c_float
    return function
