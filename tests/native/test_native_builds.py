"""The kernels without Python: other compilers, another machine, sanitizers and a fuzzer."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from native.toolchains import ARM, HOST, SANITIZED, THREADS, Toolchain, missing

PROBLEMS = 160  # per operator; every 32nd is large
# Long in CI, short where someone waits; EDGEKIT_FUZZ_S says otherwise.
FUZZ_S = int(os.environ.get("EDGEKIT_FUZZ_S") or (60 if os.environ.get("CI") else 5))

Build = Callable[[Toolchain], Path]


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The folder a toolchain compiles in, one for the whole module."""
    folders: dict[Toolchain, Path] = {}

    def folder(toolchain: Toolchain) -> Path:
        if reason := missing(toolchain):
            pytest.skip(reason)
        if toolchain not in folders:
            folders[toolchain] = tmp_path_factory.mktemp("native")
        return folders[toolchain]

    return folder


def contract(toolchain: Toolchain, folder: Path, *arguments: int) -> tuple[set[str], dict[str, str]]:
    """The instruction sets that ran, and the digest of every operator's results."""
    program = toolchain.build("contract", folder)
    result = toolchain.run(program, *map(str, arguments))
    assert result.returncode == 0, result.stderr[-8000:]
    head, *lines = result.stdout.splitlines()
    digests = {}
    for line in lines:
        match = re.fullmatch(r"(\w+) (\w{16}) (\d+) of (\d+) refused", line)
        assert match, line
        assert 4 * int(match[3]) < int(match[4]), line
        digests[match[1]] = match[2]
    assert digests and len(set(digests.values())) == len(digests)
    return set(head.split()[1:]), digests


@pytest.fixture(scope="module")
def host(folder_of: Build) -> tuple[set[str], dict[str, str]]:
    return contract(HOST, folder_of(HOST), PROBLEMS)


def test_all_instruction_sets_and_threads_give_the_same_bits(host):
    isas, digests = host
    assert "scalar" in isas and "warp" in digests


def test_neon_gives_the_bits_of_this_machine(folder_of, host):
    isas, digests = contract(ARM, folder_of(ARM), PROBLEMS)
    assert isas == {"scalar", "neon"}
    assert digests == host[1]


def test_no_access_beside_an_array_and_no_undefined_behaviour(folder_of, host):
    assert contract(SANITIZED, folder_of(SANITIZED), PROBLEMS) == host


def test_no_race_between_threads_or_callers(folder_of):
    contract(THREADS, folder_of(THREADS), 64, 3)


def test_a_fuzzer_finds_nothing(folder_of, tmp_path):
    program = SANITIZED.build("fuzz", folder_of(SANITIZED), link=("-fsanitize=fuzzer",))
    # Allocations are limited one by one: the resident memory of a process begins with its parent's, and this
    # one's parent may have run all the other tests.
    limits = ("-timeout=20", "-rss_limit_mb=0", "-malloc_limit_mb=1024")
    options = (f"-max_total_time={FUZZ_S}", "-max_len=256", "-len_control=0", *limits)
    result = SANITIZED.run(
        program, *options, "-print_final_stats=1", f"-artifact_prefix={tmp_path}/", timeout_s=FUZZ_S + 120
    )
    # The report holds the input that breaks it, in base64.
    assert result.returncode == 0, result.stderr[-8000:]
    runs = re.search(r"stat::number_of_executed_units: (\d+)", result.stderr)
    assert runs and int(runs[1]) > 100, result.stderr[-2000:]


BROKEN = """
#include <thread>
int main(int count, char**) {
  int* memory = new int[2 + count]();
  int wild = 0;
  if (BREAK == 1) wild = memory[2 + count];
  if (BREAK == 2) wild = static_cast<int>(3e9f * count);
  if (BREAK == 3) wild = (2147483647 - 1 + count) + count;
  std::thread other([&] { memory[0] += 1; });
  if (BREAK == 4) memory[0] += 1;
  other.join();
  memory[1] = wild;
  const int end = 0 * memory[1];
  if (BREAK != 5) delete[] memory;
  return end;
}
"""


@pytest.mark.parametrize(
    ("toolchain", "broken", "message"),
    [
        (SANITIZED, 0, ""),
        (SANITIZED, 1, "heap-buffer-overflow"),
        (SANITIZED, 2, "outside the range of representable values"),
        (SANITIZED, 3, "signed integer overflow"),
        (SANITIZED, 5, "memory leaks"),
        (THREADS, 0, ""),
        (THREADS, 4, "data race"),
    ],
)
def test_the_sanitizers_do_see(toolchain, broken, message, tmp_path):
    if reason := missing(toolchain):
        pytest.skip(reason)
    source, program = tmp_path / "broken.cpp", tmp_path / "broken"
    source.write_text(BROKEN)
    flags = [f"-DBREAK={broken}", *toolchain.flags, *toolchain.link, "-pthread"]
    subprocess.run([toolchain.compiler, *flags, str(source), "-o", str(program)], check=True)
    result = toolchain.run(program)
    assert (result.returncode != 0) == bool(broken) and message in result.stderr, result.stderr
