"""How torch sees the operators: its own checks, compilers, transforms and derivatives of derivatives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgekit.errors import KernelError
from edgekit.torch.operators import compose, integrate_velocity, jacobian_determinant, warp, warp_adjoint

OPS = torch.ops.edgekit
SIZE = (4, 5, 6)


def image(seed: int = 0) -> Tensor:
    return torch.randn((1, 2, *SIZE), generator=torch.Generator().manual_seed(seed))


def flow(seed: int = 1) -> Tensor:
    return 0.5 * torch.randn((1, 3, *SIZE), generator=torch.Generator().manual_seed(seed))


# Of every operator that is registered: tensors and options.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "warp": (image(), flow(), 1, "edge"),
    "warp_adjoint": (image(), flow(), 1, "edge"),
    "warp_gradient": (image(), image(2), flow(), 1, "edge"),
    "compose": (flow(), flow(2), "zero"),
    "integrate_velocity": (flow(), 3, "zero"),
    "jacobian_determinant": (flow(),),
}
ONCE = {"warp_gradient"}  # what cannot be differentiated


def arguments(name: str, *, grad: bool = True) -> list[Any]:
    return [
        a.clone().requires_grad_(grad and name not in ONCE) if isinstance(a, Tensor) else a
        for a in ARGUMENTS[name]
    ]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_torchs_own_checks_pass(name: str) -> None:
    torch.library.opcheck(getattr(OPS, name).default, tuple(arguments(name)))


def everything(image: Tensor, velocity: Tensor) -> Tensor:
    """A loss with every operator in it."""
    flow = integrate_velocity(velocity, steps=4, boundary="zero")
    moved = warp(image, compose(flow, velocity))
    folds = jacobian_determinant(flow).relu().sum()
    return moved.square().sum() + warp_adjoint(image, flow).square().sum() + folds


def loss_and_gradients(loss: Callable[..., Tensor]) -> list[Tensor]:
    tensors = [image().requires_grad_(), flow().requires_grad_()]
    value = loss(*tensors)
    return [value.detach(), *torch.autograd.grad(value, tensors)]


@pytest.mark.parametrize(("backend", "dynamic"), [("aot_eager", True), ("inductor", False)])
def test_a_compiled_loss_is_one_graph_and_gives_the_same(
    backend: str, dynamic: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    compiled = torch.compile(everything, fullgraph=True, backend=backend, dynamic=dynamic)
    for found, wanted in zip(loss_and_gradients(compiled), loss_and_gradients(everything), strict=True):
        torch.testing.assert_close(found, wanted)


def test_exported_program_keeps_each_operator_as_one_node() -> None:
    class Everything(torch.nn.Module):
        def forward(self, image: Tensor, velocity: Tensor) -> Tensor:
            return everything(image, velocity)

    depth = torch.export.Dim("depth", min=2, max=64)
    shapes = {"image": {2: depth}, "velocity": {2: depth}}
    program = torch.export.export(Everything(), (image(), flow()), dynamic_shapes=shapes)
    targets = [node.target for node in program.graph.nodes if node.op == "call_function"]
    own = [target for target in targets if str(target).startswith("edgekit")]
    names = ["integrate_velocity", "compose", "warp", "jacobian_determinant", "warp_adjoint"]
    assert own == [getattr(OPS, name).default for name in names]
    for tensors in ([image(), flow()], [image()[:, :, :3], flow()[:, :, :3]]):
        torch.testing.assert_close(program.module()(*tensors), everything(*tensors))


@pytest.mark.parametrize("name", ARGUMENTS)
def test_vmap_is_a_loop(name: str) -> None:
    first, *rest = arguments(name, grad=False)
    several = torch.stack([first, first.flip(-1), 2 * first], dim=1)
    operator = getattr(OPS, name)
    mapped = torch.func.vmap(operator, in_dims=(1, *(None for _ in rest)), out_dims=1)(several, *rest)
    looped = torch.stack([operator(one, *rest) for one in several.unbind(1)], dim=1)
    torch.testing.assert_close(mapped, looped, rtol=0, atol=0)


def test_gradients_flow_through_vmap() -> None:
    images = torch.stack([image(), image(2)]).requires_grad_()
    shared = flow().requires_grad_()
    mapped = torch.func.vmap(warp, in_dims=(0, None))(images, shared).square().sum()
    looped = torch.stack([warp(one, shared) for one in images]).square().sum()
    for found, wanted in zip(
        torch.autograd.grad(mapped, (images, shared)),
        torch.autograd.grad(looped, (images, shared)),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted)


def test_second_derivatives_by_the_image() -> None:
    moving = image()[..., :2, :3, :2].double().requires_grad_()
    shift = flow()[..., :2, :3, :2].double()
    assert torch.autograd.gradgradcheck(lambda i: warp(i, shift).square(), (moving,))


def test_a_second_derivative_by_the_displacement_is_refused() -> None:
    moving, shift = image().requires_grad_(), flow().requires_grad_()
    (first,) = torch.autograd.grad(warp(moving, shift).square().sum(), (shift,), create_graph=True)
    with pytest.raises(KernelError, match="cannot be differentiated again") as caught:
        first.sum().backward()
    assert caught.value.where == "warp_gradient"
    assert "warp_plain" in str(caught.value.hint)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_forward_mode_is_refused(requires_grad: bool) -> None:
    velocity = flow().requires_grad_(requires_grad)
    for operator in (integrate_velocity, jacobian_determinant):
        with pytest.raises(KernelError, match="forward-mode"):
            torch.func.jvp(operator, (velocity,), (flow(2),))
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(velocity, flow(2))
        for operator in (warp, warp_adjoint, compose):
            with pytest.raises(KernelError, match="forward-mode"):
                operator(dual, velocity)
            with pytest.raises(KernelError, match="forward-mode"):
                operator(velocity, dual)
