from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekit.errors import KernelError
from edgekit.torch.operators import integrate_plain, integrate_velocity, warp, warp_plain

WARP = torch.ops.edgekit.warp
INTEGRATE = torch.ops.edgekit.integrate_velocity


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def smooth(*shape: int, seed: int = 0) -> Tensor:
    coarse = random(*shape[:2], *(3 for _ in shape[2:]), seed=seed)
    mode = "trilinear" if len(shape) == 5 else "bilinear"
    return torch.nn.functional.interpolate(coarse, size=shape[2:], mode=mode, align_corners=True)


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


def test_half_a_voxel_beyond_the_end_of_a_single_voxel_axis_is_half_of_zero() -> None:
    image = torch.ones(1, 1, 1, 4)
    flow = torch.zeros(1, 2, 1, 4)
    flow[:, 0] = 0.5
    torch.testing.assert_close(warp(image, flow, boundary="zero"), torch.full_like(image, 0.5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nearest_takes_the_higher_index_halfway(dtype: torch.dtype) -> None:
    image = torch.arange(6, dtype=dtype).reshape(1, 1, 1, 6)
    flow = torch.zeros(1, 2, 1, 6, dtype=dtype)
    flow[:, 1] = 0.5
    assert warp(image, flow, order=0).flatten().tolist() == [1, 2, 3, 4, 5, 5]


@pytest.mark.parametrize("boundary", ["edge", "zero"])
@pytest.mark.parametrize("size", SIZES)
def test_operators_agree_with_their_definition(size: tuple[int, ...], boundary: str) -> None:
    image, flow = random(2, 3, *size), 2 * smooth(2, len(size), *size, seed=1)
    expected = warp_plain(image.double(), flow.double(), 1, boundary).float()
    torch.testing.assert_close(warp(image, flow, boundary=boundary), expected, rtol=0, atol=2e-5)
    expected = integrate_plain(flow.double(), 5, boundary).float()
    torch.testing.assert_close(
        integrate_velocity(flow, steps=5, boundary=boundary), expected, rtol=0, atol=5e-5
    )


def test_constant_velocity_moves_by_itself() -> None:
    velocity = torch.tensor([1.5, -2.0, 0.25]).reshape(1, 3, 1, 1, 1).expand(1, 3, 4, 5, 6)
    torch.testing.assert_close(integrate_velocity(velocity), velocity.contiguous())


def test_integrating_the_negative_velocity_inverts() -> None:
    velocity = smooth(1, 3, 16, 16, 16)
    forward, backward = integrate_velocity(velocity), integrate_velocity(-velocity)
    residual = (backward + warp(forward, backward))[..., 4:-4, 4:-4, 4:-4]
    assert residual.abs().max() < 0.05 * forward.abs().max()


@pytest.mark.parametrize("boundary", ["edge", "zero"])
def test_gradients(boundary: str) -> None:
    image = random(1, 2, 3, 4, 5, dtype=torch.float64).requires_grad_()
    # Samples away from voxel centres, where the interpolation has a kink.
    flow = (0.3 + 0.1 * random(1, 3, 3, 4, 5, seed=1, dtype=torch.float64).tanh()).requires_grad_()
    assert torch.autograd.gradcheck(lambda i, f: warp(i, f, boundary=boundary), (image, flow))
    assert torch.autograd.gradcheck(lambda f: integrate_velocity(f, steps=3, boundary=boundary), (flow,))


def test_float32_gradients_are_those_of_the_definition() -> None:
    image, flow = random(1, 1, 5, 6, 7), smooth(1, 3, 5, 6, 7, seed=1)
    found, wanted = (image.clone().requires_grad_() for _ in range(2))
    warp(found, flow).square().sum().backward()
    warp_plain(wanted, flow, 1, "edge").square().sum().backward()
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-4)


def test_opcheck() -> None:
    image, flow = random(1, 2, 4, 5, 6).requires_grad_(), smooth(1, 3, 4, 5, 6).requires_grad_()
    torch.library.opcheck(WARP.default, (image, flow, 1, "edge"))
    torch.library.opcheck(INTEGRATE.default, (flow, 4, "zero"))


def test_exported_program_keeps_each_operator_as_one_node() -> None:
    class Tail(torch.nn.Module):
        def forward(self, image: Tensor, velocity: Tensor) -> Tensor:
            return warp(image, integrate_velocity(velocity))

    program = torch.export.export(Tail(), (random(1, 1, 4, 5, 6), smooth(1, 3, 4, 5, 6)))
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert targets == [INTEGRATE.default, WARP.default]


@pytest.mark.parametrize(
    ("image", "flow", "options", "where"),
    [
        ((1, 1, 4, 4), (1, 3, 4, 4), {}, "flow_vox"),
        ((1, 1, 4, 4), (2, 2, 4, 4), {}, "image"),
        ((1, 4, 4), (1, 2, 4, 4), {}, "image"),
        ((1, 1, 4, 5), (1, 2, 4, 4), {}, "image"),
        ((1, 1, 4, 4), (1, 2, 4, 4), {"order": 3}, "order"),
        ((1, 1, 4, 4), (1, 2, 4, 4), {"boundary": "mirrored"}, "boundary"),
    ],
)
def test_refuses_bad_arguments(
    image: tuple[int, ...], flow: tuple[int, ...], options: dict[str, object], where: str
) -> None:
    with pytest.raises(KernelError) as caught:
        warp(torch.zeros(image), torch.zeros(flow), **options)  # type: ignore[arg-type]
    assert caught.value.where == where


def test_refuses_other_types_and_steps() -> None:
    with pytest.raises(KernelError, match="float64"):
        warp(torch.zeros(1, 1, 4, 4, dtype=torch.float64), torch.zeros(1, 2, 4, 4))
    with pytest.raises(KernelError, match="steps"):
        integrate_velocity(torch.zeros(1, 2, 4, 4), steps=31)
