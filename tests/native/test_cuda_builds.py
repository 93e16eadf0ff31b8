"""The CUDA kernels compile for every architecture they are shipped for, and none spills registers.

What they compute is tested on the processor (test_native_builds.py) and, where a GPU is, by the contract of
operators (tests/kernels).
"""

from __future__ import annotations

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from native.toolchains import JOBS

from edgekit.hosts.flags import CSRC, CUDA_FLAGS, cuda_archs, cuda_code, cuda_sources, nvcc

MAX_REGISTERS = 128  # two blocks of 256 threads on a multiprocessor: launch_cuda.h
SOURCES = cuda_sources()


@dataclass(frozen=True)
class Kernel:
    """What ptxas says of one kernel on one architecture."""

    source: str
    name: str
    arch: str
    registers: int
    stack_bytes: int
    spilled_bytes: int


@pytest.fixture(scope="module")
def compiler() -> str:
    found = nvcc()
    if not found:
        pytest.skip("no nvcc (GPU toolchain)")
    return found


def call(compiler: str, *arguments: str) -> str:
    done = subprocess.run([compiler, *CUDA_FLAGS, f"-I{CSRC}", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


REPORT = re.compile(
    r"Compiling entry function '(?P<name>\w+)' for '(?P<arch>sm_\d+)'\n"
    r"ptxas info\s+: Function properties for \w+\n"
    r"\s*(?P<stack>\d+) bytes stack frame, (?P<stores>\d+) bytes spill stores, "
    r"(?P<loads>\d+) bytes spill loads\n"
    r"ptxas info\s+: Used (?P<registers>\d+) registers"
)


def kernels_of(source: Path, log: str) -> list[Kernel]:
    """One for every kernel and architecture in a log of ptxas."""
    found = [
        Kernel(
            source.parent.name,
            match["name"],
            match["arch"],
            int(match["registers"]),
            int(match["stack"]),
            int(match["stores"]) + int(match["loads"]),
        )
        for match in REPORT.finditer(log)
    ]
    assert len(found) == log.count("Compiling entry function"), log
    return found


@pytest.fixture(scope="module")
def kernels(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> list[Kernel]:
    folder = tmp_path_factory.mktemp("cuda")

    def compile_one(source: Path) -> list[Kernel]:
        result = str(folder / f"{source.stem}.o")
        return kernels_of(
            source, call(compiler, *cuda_code(compiler), "-Xptxas=-v", "-c", str(source), "-o", result)
        )

    largest_first = sorted(SOURCES, key=lambda source: source.stem != "sample_cuda")
    with ThreadPoolExecutor(JOBS) as workers:
        return [kernel for found in workers.map(compile_one, largest_first) for kernel in found]


def plain_names(kernels: list[Kernel]) -> dict[str, str]:
    """Mangled names as a reader wants them: ``<SampleVoxel<float, 3, 1, finish 0> >``."""
    names = sorted({kernel.name for kernel in kernels})
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    lines = [re.sub(r"\(ek::Finish\)", "finish ", line) for line in done.stdout.splitlines()]
    short = [re.sub(r"ek::\w+::|ek::|^void |each_voxel|\(.*", "", line) for line in lines]
    return dict(zip(names, short, strict=True))


def test_every_kernel_compiles_everywhere_without_spills(compiler, kernels, capsys):
    archs = [f"sm_{arch}" for arch in cuda_archs(compiler)]
    table: dict[tuple[str, str], dict[str, Kernel]] = {}
    for kernel in kernels:
        table.setdefault((kernel.source, kernel.name), {})[kernel.arch] = kernel
    names = plain_names(kernels)
    with capsys.disabled():
        print(f"\nregisters of CUDA kernels: {'':44}{''.join(f'{arch:>8}' for arch in archs)}")
        for (source, name), found in sorted(table.items()):
            registers = "".join(f"{found[arch].registers:8}" for arch in archs)
            print(f"  {f'{source}: {names[name]}'[:68]:69}{registers}")
    assert {source for source, _ in table} == {s.parent.name for s in SOURCES if s.stem.endswith("_cuda")}
    assert all(list(found) == archs or sorted(found) == sorted(archs) for found in table.values())
    assert [kernel for kernel in kernels if kernel.spilled_bytes] == []
    assert max(kernel.registers for kernel in kernels) <= MAX_REGISTERS


def test_no_product_and_sum_are_contracted(compiler, tmp_path):
    """Or a device would give other bits than the processor."""
    ptx = tmp_path / "sample.ptx"
    call(compiler, "-arch=compute_75", "-ptx", str(CSRC / "inverse" / "inverse_cuda.cu"), "-o", str(ptx))
    code = ptx.read_text()
    assert "mul.f32" in code or "mul.rn.f32" in code
    assert "fma.rn.f32" not in code and "mad.f32" not in code


def test_the_compiler_refuses_and_ptxas_reports_spills(compiler, tmp_path):
    source = tmp_path / "broken.cu"
    source.write_text("__global__ void broken() { int never_used; }")
    done = subprocess.run(
        [compiler, *CUDA_FLAGS, "-c", str(source), "-o", str(tmp_path / "o")], capture_output=True, text=True
    )
    assert done.returncode != 0 and "never_used" in done.stderr
    source.write_text(
        """__global__ void __launch_bounds__(1024) spills(float* p) {
             float v[96];
             #pragma unroll
             for (int i = 0; i < 96; ++i) v[i] = p[i * 7];
             __syncthreads();
             #pragma unroll
             for (int i = 0; i < 96; ++i) p[i * 5] = v[i] * v[(5 * i + 1) % 96];
           }"""
    )
    log = call(
        compiler,
        "-gencode=arch=compute_87,code=sm_87",
        "-Xptxas=-v",
        "-c",
        str(source),
        "-o",
        str(tmp_path / "o"),
    )
    assert [kernel.spilled_bytes > 0 for kernel in kernels_of(source, log)] == [True]
