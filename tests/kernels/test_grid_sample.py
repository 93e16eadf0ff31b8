"""What is particular to grid_sample: PyTorch's and ONNX's results, ties, odd values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.errors import KernelError
from edgekit.kernels import coords, grid_sample, warp
from edgekit.kernels.grid_sample import PADDING_MODES, grids

PAIRS = (
    ((7, 9), (5, 20)),
    ((1, 6), (4, 4)),
    ((1, 1), (2, 3)),
    ((5, 6, 7), (3, 4, 19)),
    ((4, 1, 3), (2, 2, 9)),
)


def test_the_vectors_of_onnx_pass(monkeypatch):
    from onnx.backend.test.case.node import gridsample
    from onnx.helper import get_attribute_value

    names = set()

    def check(node, inputs, outputs, name):
        attributes = {a.name: get_attribute_value(a) for a in node.attribute}
        result = grid_sample(
            *inputs,
            mode=attributes.get("mode", b"linear").decode(),
            padding_mode=attributes.get("padding_mode", b"zeros").decode(),
            align_corners=bool(attributes.get("align_corners", 0)),
        )
        assert result.shape == outputs[0].shape and result.dtype == outputs[0].dtype
        np.testing.assert_allclose(result, outputs[0], rtol=1e-4, atol=1e-4, err_msg=name)
        names.add(name)

    monkeypatch.setattr(gridsample, "expect", check)
    for attribute, export in vars(gridsample.GridSample).items():
        if attribute.startswith("export"):
            export.__func__()
    assert len(names) >= 18 and any("volumetric" in name for name in names)


def torch_result(image, grid, **options):
    import torch

    tensors = torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(grid)
    return torch.nn.functional.grid_sample(*tensors, **options).numpy()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("sizes", "wanted"), PAIRS)
def test_agrees_with_torch(sizes, wanted, mode, padding_mode, align_corners):
    if mode == "bicubic" and len(sizes) == 3:
        mode = "bilinear"  # torch has no cubic volumes
    rng = np.random.default_rng(0)
    image = rng.standard_normal((2, 3, *sizes)).astype(np.float32)
    options = {"mode": mode, "padding_mode": padding_mode, "align_corners": align_corners}
    for label, grid in grids(rng, (2, *wanted, len(sizes)), sizes):
        if label == "special":
            continue
        got, want = grid_sample(image, grid, **options), torch_result(image, grid, **options)
        # Coordinates are the same up to the last place, of about 150 far outside.
        atol = {"nearest": 0, "bilinear": 4e-6, "bicubic": 5e-6}[mode] * (40 if label == "outside" else 1)
        np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=label)


@given(st.data())
def test_exact_halves_are_rounded_as_torch_does(data):
    size = data.draw(st.sampled_from([2, 4, 8, 16, 3, 5]))
    align = size in (3, 5)
    count = 2 * (size - 1 if align else size)
    steps = data.draw(st.lists(st.integers(-3 * count, 3 * count), min_size=1, max_size=20))
    grid = np.zeros((1, 1, len(steps), 2), np.float32)
    grid[..., 0] = np.array(steps) / count
    image = np.arange(1, size + 1, dtype=np.float32).reshape(1, 1, 1, size)
    for padding_mode in PADDING_MODES:
        options = {"mode": "nearest", "padding_mode": padding_mode, "align_corners": align}
        np.testing.assert_array_equal(
            grid_sample(image, grid, **options), torch_result(image, grid, **options)
        )


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("align_corners", [False, True])
def test_cubic_volumes_are_those_of_onnx(padding_mode, align_corners):
    from onnx.helper import make_node
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(1)
    image = rng.standard_normal((1, 1, 4, 3, 5)).astype(np.float32)
    reach = 1.0 if padding_mode == "border" else 1.3  # beyond, ONNX clamps coordinates and PyTorch voxels
    grid = rng.uniform(-reach, reach, (1, 2, 2, 3, 3)).astype(np.float32)
    options = {"mode": "cubic", "padding_mode": padding_mode, "align_corners": align_corners}
    node = make_node("GridSample", ["x", "grid"], ["y"], **{**options, "align_corners": int(align_corners)})
    (want,) = ReferenceEvaluator(node).run(None, {"x": image, "grid": grid})
    got = grid_sample(image, grid, **options)
    np.testing.assert_allclose(got, want, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", ["float16", "uint8", "int16"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_narrow_images_are_sampled_in_float32_and_rounded(dtype, mode):
    rng = np.random.default_rng(2)
    image = rng.integers(0, 256, (1, 2, 6, 7)).astype(dtype)
    grid = rng.uniform(-1.1, 1.1, (1, 9, 20, 2)).astype(np.float32)
    wide = grid_sample(image.astype(np.float32), grid, mode=mode)
    got = grid_sample(image, grid, mode=mode)
    assert got.dtype == dtype
    if dtype == "float16":
        want = wide.astype(np.float16)
    else:
        limits = np.iinfo(dtype)
        want = np.clip(np.rint(wide), limits.min, limits.max).astype(dtype)
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_channels_last_in_channels_last_out(mode):
    rng = np.random.default_rng(3)
    image = rng.standard_normal((2, 5, 6, 7, 8)).astype(np.float32)
    grid = rng.uniform(-1.1, 1.1, (2, 3, 4, 19, 3)).astype(np.float32)
    last = np.moveaxis(np.ascontiguousarray(np.moveaxis(image, 1, -1)), -1, 1)
    got = grid_sample(last, grid, mode=mode)
    assert np.moveaxis(got, 1, -1).flags.c_contiguous
    np.testing.assert_array_equal(got, grid_sample(image, grid, mode=mode))


@pytest.mark.parametrize("padding_mode", PADDING_MODES)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_nan_gives_nan_there_and_nowhere_else(mode, padding_mode):
    image = np.ones((1, 2, 5, 6), np.float32)
    grid = np.zeros((1, 3, 40, 2), np.float32)
    grid[0, 1, 20, 1] = np.nan
    got = grid_sample(image, grid, mode=mode, padding_mode=padding_mode)
    assert np.isnan(got[0, :, 1, 20]).all() and np.isnan(got).sum() == 2


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("far", [np.inf, 1e38, 1e10, 1e6])
@pytest.mark.parametrize("align_corners", [False, True])
def test_far_is_outside(mode, far, align_corners):
    image = np.arange(1, 13, dtype=np.float32).reshape(1, 1, 3, 4)
    for component, sign in itertools.product((0, 1), (1, -1)):
        grid = np.zeros((1, 1, 20, 2), np.float32)
        grid[..., component] = sign * far
        options = {"mode": mode, "align_corners": align_corners}
        assert not grid_sample(image, grid, padding_mode="zeros", **options).any()
        grid[..., component] = sign  # the corner
        corner = grid_sample(image, grid, padding_mode="border", mode="linear", align_corners=align_corners)
        grid[..., component] = sign * far
        got = grid_sample(image, grid, padding_mode="border", **options)
        if mode != "nearest":  # the other axis lies at a tie
            np.testing.assert_allclose(got, corner, rtol=0, atol=1e-5)
        reflected = grid_sample(image, grid, padding_mode="reflection", **options)
        assert np.isnan(reflected).all() if np.isinf(far) else np.isfinite(reflected).all()


def test_it_is_warp_through_the_converted_grid():
    rng = np.random.default_rng(4)
    image = rng.standard_normal((1, 2, 6, 7, 8)).astype(np.float32)
    flow = rng.uniform(-2, 2, (1, 3, 6, 7, 8)).astype(np.float32)
    for align in (False, True):
        grid = coords.flow_to_grid(flow, align_corners=align)
        for padding_mode, boundary in (("zeros", "zero"), ("border", "edge")):
            got = grid_sample(image, grid, padding_mode=padding_mode, align_corners=align)
            np.testing.assert_allclose(got, warp(image, flow, boundary=boundary), rtol=0, atol=2e-5)


@pytest.mark.parametrize(
    ("image", "grid", "message"),
    [
        ((1, 1, 4, 5), (1, 4, 5, 3), r"want shape \[1, H, W, 2\]"),
        ((2, 1, 4, 5), (1, 4, 5, 2), r"want shape \[2, H, W, 2\]"),
        ((1, 1, 4, 5), (1, 4, 5, 5, 3), r"want shape \[1, H, W, 2\]"),
        ((1, 1, 4, 5, 6), (1, 4, 5, 6, 2), r"want shape \[1, D, H, W, 3\]"),
    ],
)
def test_image_and_grid_that_do_not_go_together_are_refused(image, grid, message):
    with pytest.raises(KernelError, match=message):
        grid_sample(np.zeros(image, np.float32), np.zeros(grid, np.float32))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "trilinear"}, "mode: want one of 'nearest', 'bilinear'"),
        ({"mode": 1}, "mode: want one of"),
        ({"padding_mode": "edge"}, "padding_mode: want one of 'zeros'"),
        ({"align_corners": 1}, "align_corners: want True or False"),
        ({"align_corners": None}, "align_corners: want True or False"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(KernelError, match=message):
        grid_sample(np.zeros((1, 1, 4, 5), np.float32), np.zeros((1, 4, 5, 2), np.float32), **options)


def test_bicubic_volumes_are_refused_with_the_word_that_works():
    with pytest.raises(KernelError, match="2 axes alone") as caught:
        grid_sample(
            np.zeros((1, 1, 2, 4, 5), np.float32), np.zeros((1, 2, 4, 5, 3), np.float32), mode="bicubic"
        )
    assert caught.value.hint == 'mode="cubic"'
