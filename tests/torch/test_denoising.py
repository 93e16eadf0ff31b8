"""The denoising operators in torch: the kernels' results, on the CPU, without derivatives."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import torch

from edgekit.errors import KernelError
from edgekit.kernels.base import OPERATORS
from edgekit.torch import denoising

# The options of each that have no default, and those of the kernels that torch is not told.
REQUIRED = {
    "anisotropic_diffusion": {},
    "bilateral": {"sigma_space": 1.5, "sigma_range": 0.3, "radius": 2},
    "gaussian": {"sigma": 1.2},
    "guided_filter": {"radius": 2, "epsilon": 0.01},
    "median": {},
    "non_local_means": {"sigma": 0.1},
    "obnlm": {"sigma": 0.3},
    "srad": {"iterations": 3},
    "total_variation": {"weight": 0.1, "iterations": 5},
}
LEFT_OUT = {"image", "guide", "mask", "region", "return_gap", "spatial_ndim", "out", "threads"}
NAMES = list(REQUIRED)


def image(*shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).random(shape, np.float32))


def test_every_denoising_operator_is_there():
    own = {name for name in OPERATORS if "denoise" in inspect.getmodule(OPERATORS[name].function).__name__}
    assert own - set(NAMES) == {"joint_bilateral", "temporal_denoise"}  # not of one image


@pytest.mark.parametrize("name", NAMES)
def test_options_are_those_of_the_kernel(name):
    kernel = inspect.signature(OPERATORS[name].function).parameters
    schema = getattr(torch.ops.edgekit, name).default._schema
    options = {argument.name: argument for argument in schema.arguments[1:]}
    assert set(options) == set(kernel) - LEFT_OUT
    for key, argument in options.items():
        default = kernel[key].default
        assert argument.has_default_value() == (default is not inspect.Parameter.empty), key
        if argument.has_default_value():
            assert argument.default_value == default, key


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(1, 2, 9, 17), (2, 1, 5, 9, 11)])
def test_results_are_those_of_the_kernel(name, shape):
    tensor, options = image(*shape), REQUIRED[name]
    want = OPERATORS[name].function(tensor.numpy(), spatial_ndim=len(shape) - 2, **options)
    got = getattr(denoising, name)(tensor, **options)
    np.testing.assert_array_equal(got.numpy(), want)
    assert got.dtype == torch.float32
    assert getattr(denoising, name)(tensor.bfloat16(), **options).dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_compiles_and_exports_as_one_node(name):
    class Calm(torch.nn.Module):
        def forward(self, x):
            return getattr(denoising, name)(x, **REQUIRED[name]) + 1

    tensor = image(1, 1, 12, 16)
    want = Calm()(tensor)
    torch._dynamo.reset()
    torch.testing.assert_close(torch.compile(Calm(), backend="eager", fullgraph=True)(tensor), want)
    program = torch.export.export(Calm(), (tensor,))
    assert f"torch.ops.edgekit.{name}.default" in program.graph_module.code
    torch.testing.assert_close(program.module()(tensor), want)


def test_registration_is_what_torch_expects():
    for name in NAMES:
        torch.library.opcheck(getattr(torch.ops.edgekit, name).default, (image(1, 1, 8, 9),), REQUIRED[name])


def test_vmap_is_a_loop():
    several = image(3, 2, 1, 8, 9)
    for name in NAMES:
        operator = getattr(denoising, name)
        mapped = torch.func.vmap(lambda x, o=operator, n=name: o(x, **REQUIRED[n]))(several)
        looped = torch.stack([operator(one, **REQUIRED[name]) for one in several])
        torch.testing.assert_close(mapped, looped, rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_there_is_no_derivative_and_the_error_says_so(name):
    result = getattr(denoising, name)(image(1, 1, 6, 7).requires_grad_(), **REQUIRED[name])
    with pytest.raises(KernelError, match=f"{name} has no derivative") as caught:
        result.sum().backward()
    assert "detach()" in caught.value.hint
    with torch.no_grad():
        assert not getattr(denoising, name)(image(1, 1, 6, 7), **REQUIRED[name]).requires_grad


def test_what_does_not_fit_is_refused():
    with pytest.raises(KernelError, match=r"want \[N, C, H, W\] or"):
        denoising.median(image(6, 7))
    with pytest.raises(KernelError, match="want float32 or float16 or uint8 or int16, got float64"):
        denoising.median(image(1, 1, 6, 7).double())
    with pytest.raises(KernelError, match="radius"):
        denoising.median(image(1, 1, 6, 7), radius=0)
    with pytest.raises(KernelError, match="on meta") as caught:
        denoising._run("median", torch.empty(1, 1, 4, 4, device="meta"), {})
    assert caught.value.hint == "image.cpu()"
