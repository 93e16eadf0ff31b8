"""Operators of edgekit in networks for a GPU: kernels of ours, on a processor that plays the GPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from backends.backend_models import weights
from backends.tvm.cuda_tools import for_processor, run_library

from edgekit import kernels
from edgekit.backends.tvm.cuda import compiler, device
from edgekit.backends.tvm.importer import importable
from edgekit.hosts import cuda, tensorrt
from edgekit.hosts import tvm as host
from edgekit.hosts.build import Platform

_AT = 'ir_version: 10, opset_import: ["": 20, "edgekit": 1]'
# Every way in which a kernel takes its arguments: volumes, images, a workspace, numbers and names.
TEXT = """net (float[1,2,5,6,7] image, float[1,3,5,6,7] velocity, float[1,1,9,8] plane) =>
        (float[1,2,5,6,7] moved, float[1,3,5,6,7] flow, float[1,5,6,7] folds, float[1,1,9,8] smooth) {
    flow = edgekit.IntegrateVelocity <steps = 3> (velocity)
    moved = edgekit.Warp <boundary = "edge"> (image, flow)
    folds = edgekit.JacobianDeterminant (flow)
    smooth = edgekit.Bilateral <sigma_space = 1.5, sigma_range = 0.5, radius = 2> (plane)
}"""
BOTH = """net (float[1,2,5,6,7] image) => (float[1,2,5,6,7] moved)
        <float[3,2,1,1,1] taps = {0.1, 0.2, 0.3, -0.1, -0.2, 0.4}> {
    flow = Conv (image, taps)
    moved = edgekit.Warp (image, flow)
}"""


def parsed(text: str) -> ir.Model:
    return ir.serde.deserialize_model(onnx.parser.parse_model(f"<{_AT}> {text}"))


@pytest.fixture(scope="module")
def feeds() -> list[np.ndarray]:
    return [weights(1, 2, 5, 6, 7), weights(1, 3, 5, 6, 7, seed=1), weights(1, 1, 9, 8, seed=2)]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The network, with device code that the driver which plays takes for the kernels."""
    here, path = Platform.here(), tmp_path_factory.mktemp("operators") / "model.so"
    wanted = device.target("sm_87", here)

    def fake(board: tensorrt.Board, folder: Path) -> list[Path]:
        (folder / "device.fake").write_bytes(b"fake" + bytes(60))
        return [folder / "device.fake"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorrt, "device_images", fake)
        with importable() as used:
            module = compiler.lowered(parsed(TEXT), wanted)
        assert used == {"IntegrateVelocity", "Warp", "JacobianDeterminant", "Bilateral"}
        addons = host.gpu_addons(here, "sm_fake", "13.0")
        device.write_library(device.compiled(module, wanted), path, wanted, here, for_processor, addons)
    return path


def test_they_give_the_references_numbers(library, driver, feeds):
    image, velocity, plane = feeds
    [(moved, flow, folds, smooth)] = run_library(driver, library, [("main", feeds)])
    wanted = kernels.integrate_velocity(velocity, steps=3)
    np.testing.assert_allclose(flow, wanted, atol=1e-5)
    np.testing.assert_allclose(moved, kernels.warp(image, wanted, boundary="edge"), atol=1e-5)
    np.testing.assert_allclose(folds, kernels.jacobian_determinant(wanted), atol=1e-5)
    denoised = kernels.bilateral(plane, sigma_space=1.5, sigma_range=0.5, radius=2, spatial_ndim=2)
    np.testing.assert_allclose(smooth, denoised, atol=1e-5)


def test_a_second_call_has_tables_that_last(library, driver, feeds):
    first, second = run_library(driver, library, [("main", feeds), ("main", feeds)])
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("arch", "version"), [("sm_87", "13.0"), ("sm_110", "13.0"), ("sm_87", "12.6")])
def test_the_boards_library_holds_both(tmp_path, arch, version):
    if cuda.missing(version):
        pytest.skip(f"no compiler for CUDA {version} (GPU toolchain)")
    path = tmp_path / "model.so"
    compiler.export(parsed(BOTH), path, arch, Platform("aarch64", "2.35"), version=version)
    content = path.read_bytes()
    assert arch in cuda.architectures(content)
    assert b"ek_sample_f32_3d_linear" in content or version.startswith("13")  # nvcc packs it
