"""How torch sees the operators: its own checks, compilers, transforms and derivatives of derivatives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from edgekit.errors import KernelError
from edgekit.kernels import base
from edgekit.torch.denoising import bilateral, non_local_means
from edgekit.torch.operators import (
    compose,
    grid_sample,
    integrate_velocity,
    jacobian_determinant,
    warp,
    warp_adjoint,
)

OPS = torch.ops.edgekit
SIZE = (4, 5, 6)


def image(seed: int = 0) -> Tensor:
    return torch.randn((1, 2, *SIZE), generator=torch.Generator().manual_seed(seed))


def flow(seed: int = 1) -> Tensor:
    return 0.5 * torch.randn((1, 3, *SIZE), generator=torch.Generator().manual_seed(seed))


def grid(seed: int = 3) -> Tensor:
    return 0.8 * torch.randn((1, 2, 3, 4, 3), generator=torch.Generator().manual_seed(seed))


# Of every operator that is registered: tensors and options.
ARGUMENTS: dict[str, tuple[Any, ...]] = {
    "warp": (image(), flow(), 1, "edge"),
    "warp_adjoint": (image(), flow(), 1, "edge"),
    "warp_gradient": (image(), image(2), flow(), 1, "edge"),
    "compose": (flow(), flow(2), "zero"),
    "integrate_velocity": (flow(), 3, "zero"),
    "grid_sample": (image(), grid(), "linear", "border", False),
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
    moved = warp(image, compose(flow, velocity)) + grid_sample(image, velocity.movedim(1, -1))
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
    names = [
        "integrate_velocity",
        "compose",
        "warp",
        "grid_sample",
        "jacobian_determinant",
        "warp_adjoint",
    ]
    assert sorted(map(str, own)) == sorted(str(getattr(OPS, name).default) for name in names)
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


# Every operator that ONNX has, called as users do.
CALLS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...], dict[str, Any]]] = {
    "warp": (warp, (image(), flow()), {}),
    "compose": (compose, (flow(), flow(2)), {}),
    "integrate_velocity": (integrate_velocity, (flow(),), {"steps": 2}),
    "grid_sample": (grid_sample, (image(), grid()), {}),
    "jacobian_determinant": (jacobian_determinant, (flow(),), {}),
    "non_local_means": (non_local_means, (image(),), {"sigma": 0.1, "search_radius": 1}),
    "bilateral": (bilateral, (image(),), {"sigma_space": 1.0, "sigma_range": 0.5}),
}


def executions(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What kernels are called with from now on: pointers of inputs and outputs, threads."""
    calls: list[dict[str, Any]] = []
    execute = base.Operator.execute

    def watch(self: base.Operator, inputs: Any, outputs: Any, *, threads: int, **options: Any) -> None:
        pointers = [[array.ctypes.data for array in arrays] for arrays in (inputs, outputs)]
        calls.append({"inputs": pointers[0], "outputs": pointers[1], "threads": threads})
        execute(self, inputs, outputs, threads=threads, **options)

    monkeypatch.setattr(base.Operator, "execute", watch)
    return calls


@pytest.mark.parametrize("name", CALLS)
def test_kernels_read_and_write_the_tensors_memory(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = executions(monkeypatch)
    operator, tensors, options = CALLS[name]
    result = operator(*tensors, **options)
    (call,) = calls
    assert call["inputs"] == [tensor.data_ptr() for tensor in tensors]
    assert call["outputs"] == [result.data_ptr()]


@pytest.mark.parametrize("name", ["warp", "non_local_means", "bilateral"])
def test_float16_is_read_in_place_where_a_kernel_takes_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = executions(monkeypatch)
    operator, tensors, options = CALLS[name]
    halves = [tensor.half() for tensor in tensors]
    result = operator(*halves, **options)
    assert result.dtype == torch.float16
    assert calls[0]["inputs"] == [tensor.data_ptr() for tensor in halves]


@pytest.mark.parametrize("name", CALLS)
def test_kernels_use_as_many_threads_as_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = executions(monkeypatch)
    operator, tensors, options = CALLS[name]
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            operator(*tensors, **options)
    finally:
        torch.set_num_threads(before)
    assert [call["threads"] for call in calls] == [1, 3]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CALLS)
def test_narrow_types_and_compilers(name: str, dtype: torch.dtype) -> None:
    """In eager mode, compiled with lengths that vary, and exported."""
    operator, tensors, options = CALLS[name]
    narrow = [tensor.to(dtype) for tensor in tensors]
    wanted = operator(*(tensor.float() for tensor in narrow), **options)
    # Non-local means of float16 sums in the kernel's own order.
    torch.testing.assert_close(operator(*narrow, **options), wanted.to(dtype), rtol=0.01, atol=0.01)

    class Module(torch.nn.Module):
        def forward(self, *inputs: Tensor) -> Tensor:
            return operator(*inputs, **options)

    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    compiled = torch.compile(Module(), fullgraph=True, backend="eager", dynamic=True)
    torch.testing.assert_close(compiled(*narrow), operator(*narrow, **options), rtol=0, atol=0)
    program = torch.export.export(Module(), tuple(narrow))
    torch.testing.assert_close(program.module()(*narrow), operator(*narrow, **options), rtol=0, atol=0)
