"""The code of the page about TVM runs, or crashes where the page says so."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import onnx
from backends.backend_models import parse, weights

from edgekit.hosts import elf

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tvm.md"


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    return str(found)


def run(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command, environment = [sys.executable, "-c", code], {**os.environ, **environment}
    return subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=600)


def test_the_code_of_the_page_runs(tmp_path: Path) -> None:
    done = run(block("python"), tmp_path, XDG_CACHE_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr[-4000:]
    report, file = done.stdout.splitlines()[-2:]
    assert report.startswith("tuning: 1 problems, 0 known, 1 measured")
    assert file == str(tmp_path / "edgekit" / "tvm" / "x86-64-v3.jsonl")


def test_metaschedule_s_crash_is_still_there(tmp_path: Path) -> None:
    """Where it is gone, MetaSchedule is worth another look, and the page another text."""
    done = run(block("python crash"), tmp_path)
    assert done.returncode == -signal.SIGSEGV
    assert "ToJSONGraph" in done.stderr


def test_the_code_for_gpus_runs(tmp_path: Path, nvcc: str) -> None:
    model = parse(
        "gpu (float[1,8,9,9] x) => (float[1,8,9,9] y) { y = Conv<pads=[1,1,1,1]>(x, w) }",
        w=weights(8, 8, 3, 3),
    )
    onnx.save(model, tmp_path / "model.onnx")
    done = run(block("python run-with-nvcc"), tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert elf.arch_of((tmp_path / "model.so").read_bytes()[:20]) == "aarch64"
