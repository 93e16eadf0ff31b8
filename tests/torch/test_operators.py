"""What the operators compute, in every type, and their gradients. How torch sees them: test_library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from edgekit.errors import KernelError
from edgekit.kernels.base import OPERATORS
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS
from edgekit.torch import definitions, library
from edgekit.torch.operators import (
    compose,
    grid_sample,
    integrate_velocity,
    jacobian_determinant,
    warp,
    warp_adjoint,
)


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def smooth(*shape: int, seed: int = 0) -> Tensor:
    coarse = random(*shape[:2], *(3 for _ in shape[2:]), seed=seed)
    mode = "trilinear" if len(shape) == 5 else "bilinear"
    return torch.nn.functional.interpolate(coarse, size=shape[2:], mode=mode, align_corners=True)


def gap(size: tuple[int, ...], seed: int = 1) -> Tensor:
    """A displacement, float64, that stays clear of whole coordinates, where interpolation has kinks."""
    whole = 3 * random(1, len(size), *size, seed=seed, dtype=torch.float64)
    return whole.floor() + 0.5 + 0.3 * random(1, len(size), *size, seed=seed + 1, dtype=torch.float64).tanh()


SIZES = [(5, 6, 7), (1, 4, 9), (6, 5), (1, 3)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("boundary", ["edge", "zero"])
@pytest.mark.parametrize("order", [0, 1])
def test_zero_flow_is_identity(size: tuple[int, ...], boundary: str, order: int) -> None:
    image = random(2, 3, *size)
    flow = torch.zeros(2, len(size), *size)
    torch.testing.assert_close(warp(image, flow, order=order, boundary=boundary), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("boundary", ["edge", "zero"])
def test_flow_of_two_voxels_pulls_from_two_voxels_further(axis: int, boundary: str) -> None:
    image = random(1, 2, 5, 6, 7)
    flow = torch.zeros(1, 3, 5, 6, 7)
    flow[:, axis] = 2
    size = image.shape[axis + 2]
    expected = image.index_select(axis + 2, (torch.arange(size) + 2).clamp(max=size - 1))
    if boundary == "zero":
        expected.narrow(axis + 2, size - 2, 2).zero_()
    torch.testing.assert_close(warp(image, flow, boundary=boundary), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_takes_the_higher_index_halfway(dtype: torch.dtype) -> None:
    image = torch.arange(6, dtype=dtype).reshape(1, 1, 1, 6)
    flow = torch.zeros(1, 2, 1, 6, dtype=dtype)
    flow[:, 1] = 0.5
    assert warp(image, flow, order=0).flatten().tolist() == [1, 2, 3, 4, 5, 5]


def test_constant_velocity_moves_by_itself() -> None:
    velocity = torch.tensor([1.5, -2.0, 0.25]).reshape(1, 3, 1, 1, 1).expand(1, 3, 4, 5, 6)
    torch.testing.assert_close(integrate_velocity(velocity), velocity.contiguous())


def test_composition_warps_like_its_two_parts() -> None:
    # Linear interpolation of a ramp is exact, away from the border.
    ramp = torch.arange(9.0).expand(1, 1, 9, 9, 9).contiguous()
    first, second = 0.3 * smooth(1, 3, 9, 9, 9), 0.3 * smooth(1, 3, 9, 9, 9, seed=2)
    twice = warp(warp(ramp, second), first)
    inside = (..., *(slice(2, -2),) * 3)
    torch.testing.assert_close(warp(ramp, compose(first, second))[inside], twice[inside])
    assert (warp(ramp, compose(second, first)) - twice)[inside].abs().max() > 0.01


def test_integrating_the_negative_velocity_inverts() -> None:
    velocity = smooth(1, 3, 16, 16, 16)
    forward, backward = integrate_velocity(velocity), integrate_velocity(-velocity)
    residual = compose(backward, forward)[..., 4:-4, 4:-4, 4:-4]
    assert residual.abs().max() < 0.05 * forward.abs().max()


def test_count_is_what_arrives_of_ones() -> None:
    flow = torch.zeros(1, 2, 1, 4)
    flow[0, 1, 0, 0] = 1
    pushed, count = warp_adjoint(torch.tensor([[[[2.0, 3, 4, 5]]]]), flow, boundary="zero", return_count=True)
    assert pushed.flatten().tolist() == [0, 5, 4, 5]
    assert count.flatten().tolist() == [0, 2, 1, 1]


def test_stretching_by_half_is_a_determinant_of_one_and_a_half() -> None:
    flow = torch.zeros(1, 3, 4, 5, 6)
    flow[:, 1] = 0.5 * torch.arange(5.0)[:, None]
    torch.testing.assert_close(jacobian_determinant(flow), torch.full((1, 4, 5, 6), 1.5))


Operator = Callable[..., Tensor]
# Each with the shapes of its inputs on a grid, N being 1: "C" stands for an image, "V" for a displacement.
SAMPLING: dict[str, tuple[Operator, str]] = {
    "warp": (warp, "CV"),
    "warp_adjoint": (warp_adjoint, "CV"),
    "compose": (compose, "VV"),
    "integrate_velocity": (integrate_velocity, "V"),
}


def inputs(kinds: str, size: tuple[int, ...]) -> list[Tensor]:
    """Float64 inputs; a displacement in the middle of cells."""
    return [
        random(1, 2, *size, seed=seed, dtype=torch.float64) if kind == "C" else gap(size, seed)
        for seed, kind in enumerate(kinds)
    ]


def every_operator() -> Iterator[Any]:
    for name, (_, kinds) in SAMPLING.items():
        for boundary in BOUNDARIES:
            for order in ORDERS if "C" in kinds else (1,):
                yield pytest.param(name, order, boundary, id=f"{name}-{order}-{boundary}")


def options_of(name: str, order: int, boundary: str) -> dict[str, int | str]:
    options: dict[str, int | str] = {"boundary": boundary}
    if "C" in SAMPLING[name][1]:
        options["order"] = order
    if name == "integrate_velocity":
        options["steps"] = 3
    return options


@pytest.mark.parametrize("size", [(3, 4, 5), (1, 3, 4), (4, 5), (1, 3)], ids=str)
@pytest.mark.parametrize(("name", "order", "boundary"), [*every_operator()])
def test_gradients_are_those_of_the_reference(
    name: str, order: int, boundary: str, size: tuple[int, ...]
) -> None:
    operator, kinds = SAMPLING[name]
    options = options_of(name, order, boundary)
    tensors = [t.requires_grad_() for t in inputs(kinds, size)]
    if name == "integrate_velocity":  # its scaled fields stay clear of whole coordinates too
        tensors = [(0.3 + 0.1 * random(1, len(size), *size, dtype=torch.float64).tanh()).requires_grad_()]
    assert torch.autograd.gradcheck(lambda *t: operator(*t, **options), tensors, fast_mode=True)


@pytest.mark.parametrize("size", [(3, 4, 5), (1, 2, 4), (4, 5), (1, 3)], ids=str)
def test_gradients_of_the_determinant(size: tuple[int, ...]) -> None:
    flow = random(2, len(size), *size, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(jacobian_determinant, (flow,), fast_mode=True)
    assert torch.autograd.gradgradcheck(jacobian_determinant, (flow,), fast_mode=True)


def results(operator: Operator, tensors: list[Tensor], options: dict[str, int | str]) -> list[Tensor]:
    """What an operator gives, and the gradients of half its squared norm."""
    tensors = [t.detach().clone().requires_grad_() for t in tensors]
    result = operator(*tensors, **options)
    result.backward(result.detach())
    return [result.detach(), *(t.grad for t in tensors if t.grad is not None)]


@pytest.mark.parametrize("size", [(17, 19, 23), (1, 8, 9), (16, 17), (1, 3)], ids=str)
@pytest.mark.parametrize(("name", "order", "boundary"), [*every_operator()])
def test_float32_and_its_gradients_are_those_of_float64(
    name: str, order: int, boundary: str, size: tuple[int, ...]
) -> None:
    operator, kinds = SAMPLING[name]
    options = options_of(name, order, boundary)
    tensors = [t.float() for t in inputs(kinds, size)]
    if name == "integrate_velocity":
        tensors = [smooth(1, len(size), *size)]
    found = results(operator, tensors, options)
    wanted = results(operator, [t.double() for t in tensors], options)
    assert len(found) == len(wanted) == 1 + len(tensors)
    for f, w in zip(found, wanted, strict=True):
        assert f.dtype == torch.float32
        torch.testing.assert_close(f.double(), w, rtol=1e-5, atol=2e-5 * max(1.0, float(w.abs().max())))


def test_float32_determinants_and_their_gradients_are_those_of_float64() -> None:
    flow = smooth(2, 3, 9, 10, 11)
    for f, w in zip(
        results(jacobian_determinant, [flow], {}),
        results(jacobian_determinant, [flow.double()], {}),
        strict=True,
    ):
        torch.testing.assert_close(f.double(), w, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in definitions.PLAIN if name != "grid_sample"])
@pytest.mark.parametrize("size", SIZES)
def test_definitions_in_torch_agree_with_the_reference(name: str, size: tuple[int, ...]) -> None:
    kinds = {"warp_gradient": "CCV", "jacobian_determinant": "V"}.get(name) or SAMPLING[name][1]
    tensors = inputs(kinds, size)
    orders, boundaries = definitions.ORDERS, definitions.BOUNDARIES
    choices: list[dict[str, int | str]] = [{"order": o, "boundary": b} for o in orders for b in boundaries]
    if name == "compose":
        choices = [{"boundary": b} for b in boundaries]
    elif name == "integrate_velocity":
        choices = [{"steps": 4, "boundary": b} for b in boundaries]
        tensors = [0.2 * tensors[0]]
    elif name == "jacobian_determinant":
        choices = [{}]
    for options in choices:
        found = definitions.PLAIN[name](*tensors, *options.values())
        wanted = OPERATORS[name].reference(*(t.numpy() for t in tensors), **options)[0]
        torch.testing.assert_close(found, torch.from_numpy(wanted), rtol=0, atol=1e-9)


def sampling_options(*modes: str) -> list[dict[str, Any]]:
    return [
        {"mode": mode, "padding_mode": padding, "align_corners": align}
        for mode in modes
        for padding in ("zeros", "border", "reflection")
        for align in (False, True)
    ]


@pytest.mark.parametrize("size", [(5, 6, 7), (1, 4, 9), (6, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_grid_sample_and_its_gradients_are_torchs(size: tuple[int, ...], dtype: torch.dtype) -> None:
    image = random(2, 3, *size, dtype=dtype)
    grid = 0.9 * random(2, *(length + 1 for length in size), len(size), seed=1, dtype=dtype)
    for options in sampling_options("bilinear", "nearest"):
        found = results(grid_sample, [image, grid], options)
        wanted = results(torch.nn.functional.grid_sample, [image, grid], options)
        assert len(found) == len(wanted) == 3
        for f, w in zip(found, wanted, strict=True):
            torch.testing.assert_close(f, w, rtol=1e-5, atol=1e-5)


def test_cubic_volumes_are_sampled_as_onnx_defines_them_and_have_no_gradients() -> None:
    image, grid = random(1, 2, 5, 6, 7), 0.5 * random(1, 3, 4, 5, 3, seed=1)
    for options in sampling_options("cubic"):
        (wanted,) = OPERATORS["grid_sample"].reference(image.numpy(), grid.numpy(), **options)
        torch.testing.assert_close(
            grid_sample(image, grid, **options), torch.from_numpy(wanted).float(), rtol=1e-5, atol=1e-5
        )
    result = grid_sample(image.requires_grad_(), grid, mode="cubic")
    with pytest.raises(KernelError, match="no mode 'cubic' for volumes, nor gradients") as caught:
        result.sum().backward()
    assert "detach()" in str(caught.value.hint)


def test_narrow_grid_samples_are_computed_in_float32() -> None:
    image, grid = random(1, 2, 5, 6, 7).half(), (0.5 * random(1, 3, 4, 5, 3, seed=1)).half()
    narrow, wide = (results(grid_sample, pair, {}) for pair in ([image, grid], [image.float(), grid.float()]))
    torch.testing.assert_close(narrow[0], wide[0].half(), rtol=0, atol=0)
    for n, w in zip(narrow[1:], wide[1:], strict=True):
        assert n.dtype == torch.float16
        torch.testing.assert_close(n.float(), w, rtol=4e-3, atol=4e-3)


@pytest.mark.parametrize(
    ("image", "grid", "options", "text"),
    [
        ((1, 1, 4, 4, 4), (1, 4, 4, 4, 2), {}, "want an image"),
        ((1, 1, 4, 4, 4), (1, 4, 4, 2), {}, "want an image"),
        ((1, 4, 4), (1, 4, 2), {}, "want an image"),
        ((2, 1, 4, 4, 4), (1, 4, 4, 4, 3), {}, "grid: want the batch of image, 2, got 1"),
        ((1, 1, 4, 4, 4), (1, 4, 4, 4, 3), {"mode": "bicubic"}, "mode: want one of 'bilinear'"),
        ((1, 1, 4, 4), (1, 4, 4, 2), {"mode": "cubic"}, "mode: want one of 'bilinear'"),
        ((1, 1, 4, 4), (1, 4, 4, 2), {"padding_mode": "edge"}, "padding_mode: want one of 'zeros'"),
        ((1, 1, 4, 4), (1, 4, 4, 2), {"align_corners": 1}, "align_corners: want True or False, got 1"),
    ],
)
def test_grid_sample_refuses(
    image: tuple[int, ...], grid: tuple[int, ...], options: dict[str, Any], text: str
) -> None:
    with pytest.raises(KernelError, match=text) as caught:
        grid_sample(torch.zeros(image), torch.zeros(grid), **options)
    assert caught.value.where == "grid_sample"
    with pytest.raises(KernelError, match="float64"):
        grid_sample(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 4, 4, 4, 3).double())


def test_without_compiled_kernels_torch_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    image, flow = random(1, 2, 5, 6, 7), smooth(1, 3, 5, 6, 7)
    compiled = results(warp, [image, flow], {})
    monkeypatch.setattr(library, "_is_compiled", lambda name: False)
    assert torch.equal(warp(image, flow), definitions.warp_plain(image, flow, 1, "edge"))
    for found, wanted in zip(results(warp, [image, flow], {}), compiled, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_definitions_refuse_what_grid_sampler_lacks() -> None:
    with pytest.raises(KernelError, match="on cpu there is no order 3") as caught:
        definitions.warp_plain(random(1, 1, 4, 4), torch.zeros(1, 2, 4, 4), 3, "edge")
    assert "cpu()" in str(caught.value.hint)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_types_are_computed_in_float32(dtype: torch.dtype) -> None:
    # In bfloat16 the coordinate 300.5 would not exist.
    image, flow = random(1, 1, 2, 400).to(dtype), torch.full((1, 2, 2, 400), 0.5).to(dtype)
    for operator, tensors in (
        (warp, [image, flow]),
        (warp_adjoint, [image, flow]),
        (compose, [flow, smooth(1, 2, 2, 400).to(dtype)]),
        (integrate_velocity, [smooth(1, 2, 2, 400).to(dtype)]),
        (jacobian_determinant, [smooth(1, 2, 2, 400).to(dtype)]),
    ):
        narrow = results(operator, tensors, {})
        wide = results(operator, [t.float() for t in tensors], {})
        torch.testing.assert_close(narrow[0], wide[0].to(dtype), rtol=0, atol=0)
        step = torch.finfo(dtype).eps
        for n, w in zip(narrow[1:], wide[1:], strict=True):
            assert n.dtype == dtype
            torch.testing.assert_close(n.float(), w, rtol=4 * step, atol=4 * step * float(w.abs().max()))


def test_any_strides_are_taken() -> None:
    image, flow = random(1, 2, 6, 5, 4), smooth(1, 3, 6, 5, 4)
    wanted = results(warp, [image, flow], {})
    last = [t.contiguous(memory_format=torch.channels_last_3d).requires_grad_() for t in (image, flow)]
    strided = [torch.stack([t, t], -1)[..., 0].requires_grad_() for t in (image, flow)]
    for tensors in (last, strided):
        assert not tensors[0].is_contiguous()
        result = warp(*tensors)
        result.backward(wanted[0].transpose(-1, -2).contiguous().transpose(-1, -2))
        for f, w in zip((result, *(t.grad for t in tensors)), wanted, strict=True):
            torch.testing.assert_close(f, w, rtol=0, atol=0)


def test_inputs_are_left_alone_and_outputs_are_new() -> None:
    velocity = smooth(1, 3, 4, 5, 6)
    before = velocity.clone()
    assert integrate_velocity(velocity, steps=0).data_ptr() != velocity.data_ptr()
    warp(velocity, velocity)
    assert torch.equal(velocity, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    for name, order, boundary in (p.values for p in every_operator()):
        if order not in definitions.ORDERS or boundary not in definitions.BOUNDARIES:
            continue
        operator, kinds = SAMPLING[name]
        options = options_of(name, order, boundary)
        tensors = [0.3 * t.float() for t in inputs(kinds, (6, 7, 8))]
        found = results(operator, [t.cuda() for t in tensors], options)
        for f, w in zip(found, results(operator, tensors, options), strict=True):
            torch.testing.assert_close(f.cpu(), w, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("image", "flow", "options", "text"),
    [
        ((1, 1, 4, 4), (1, 3, 4, 4), {}, "flow_vox: want .N, 3, D, H, W."),
        ((1, 1, 4, 4), (2, 2, 4, 4), {}, "image: want batch"),
        ((1, 4, 4), (1, 2, 4, 4), {}, "image: want batch"),
        ((1, 1, 4, 5), (1, 2, 4, 4), {}, "image: want batch"),
        ((1, 1, 4, 4), (1, 2, 4, 4), {"order": 2}, "order: want one of 0, 1, 3, got 2"),
        ((1, 1, 4, 4), (1, 2, 4, 4), {"order": True}, "order: want"),
        ((1, 1, 4, 4), (1, 2, 4, 4), {"boundary": "mirrored"}, "boundary: want one of 'zero'"),
    ],
)
@pytest.mark.parametrize("operator", [warp, warp_adjoint])
def test_refuses_bad_arguments(
    operator: Operator, image: tuple[int, ...], flow: tuple[int, ...], options: dict[str, object], text: str
) -> None:
    with pytest.raises(KernelError, match=text.replace("image", "(image|values)")) as caught:
        operator(torch.zeros(image), torch.zeros(flow), **options)
    assert caught.value.where == operator.__name__


def test_refuses_other_types_and_steps() -> None:
    flow = torch.zeros(1, 2, 4, 4)
    with pytest.raises(KernelError, match="float64"):
        warp(torch.zeros(1, 1, 4, 4, dtype=torch.float64), flow)
    with pytest.raises(KernelError, match="int32"):
        integrate_velocity(flow.int())
    for steps in (33, -1, 2.0, True):
        with pytest.raises(KernelError, match="steps"):
            integrate_velocity(flow, steps=steps)  # type: ignore[arg-type]
    with pytest.raises(KernelError, match="second_vox"):
        compose(flow, torch.zeros(1, 2, 4, 5))
    with pytest.raises(KernelError, match="at least one element"):
        warp(torch.zeros(1, 0, 4, 4), flow)
