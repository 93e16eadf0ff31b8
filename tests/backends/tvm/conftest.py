"""What the tests of TVM's kernels for GPUs share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of libraries that call themselves CUDA's."""
    from backends.tvm.cuda_tools import build_driver

    return build_driver(tmp_path_factory.mktemp("driver"))


@pytest.fixture(scope="session")
def nvcc() -> str:
    """The compiler for GPUs."""
    from edgekit.hosts import flags

    found = flags.nvcc()
    if not found:
        pytest.skip("no nvcc (GPU toolchain)")
    return found
