"""The operators that take noise away, as torch knows them: ``torch.ops.edgekit.median`` and its siblings.

    from edgekit.torch import denoising
    calm = denoising.non_local_means(image, sigma=0.1)          # image [N, C, H, W] or [N, C, D, H, W]

They run edgekit's kernels on tensors of the CPU, under ``torch.compile``, ``torch.export`` and ``torch.vmap``
as well, and have no derivatives: a backward pass through one raises a KernelError, as do tensors of other
devices.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from edgekit.errors import KernelError
from edgekit.kernels.base import OPERATORS
from edgekit.torch.registration import define

# What each takes beside the image, as torch writes signatures. Names and defaults are those of
# :mod:`edgekit.kernels`; a test compares them.
_OPTIONS = {
    "anisotropic_diffusion": "int iterations=5, float? time_step=None, float conductance=1.0, "
    "str form='gradient', int conductance_scaling_update_interval=1",
    "bilateral": "float sigma_space, float sigma_range, int? radius=None, str method='exact', "
    "str boundary='mirror'",
    "gaussian": "float sigma, float truncate=4.0, str boundary='mirror'",
    "guided_filter": "int radius, float epsilon, str boundary='mirror'",
    "median": "int radius=1, str boundary='mirror'",
    "non_local_means": "float sigma, int patch_radius=1, int search_radius=5, float strength=1.0, "
    "str method='pointwise', str noise='gaussian', str boundary='mirror'",
    "obnlm": "float sigma, int patch_radius=1, int search_radius=5, float strength=1.0, float floor=1.0, "
    "str boundary='mirror'",
    "srad": "int iterations=20, float time_step=0.5, float? q0=None, float decay=0.16666666666666666",
    "total_variation": "float weight, int iterations=100, str method='chambolle', float? tolerance=None",
}


@functools.cache
def _function(name: str) -> Callable[..., Any]:
    return OPERATORS[name].function


def _run(name: str, image: Tensor, options: dict[str, Any]) -> Tensor:
    if not image.is_cpu:
        raise KernelError(
            f"image: want a tensor on the CPU, got one on {image.device}", where=name, hint="image.cpu()"
        )
    if image.dim() not in (4, 5):
        raise KernelError(
            f"image: want [N, C, H, W] or [N, C, D, H, W], got shape {tuple(image.shape)}", where=name
        )
    if image.dtype == torch.bfloat16:
        return _run(name, image.float(), options).to(image.dtype)
    array, threads = image.detach().contiguous().numpy(), torch.get_num_threads()
    result = _function(name)(array, spatial_ndim=image.dim() - 2, threads=threads, **options)
    return torch.from_numpy(result)


def _register(name: str) -> Callable[..., Tensor]:
    def operator(image: Tensor, **options: Any) -> Tensor:
        return _run(name, image, options)

    def backward(ctx: Any, cotangent: Tensor) -> None:
        raise KernelError(
            f"{name} has no derivative: want it outside of what is differentiated",
            where=name,
            hint=f"{name}(image.detach(), ...), or under torch.no_grad()",
        )

    registered = define(name, operator, backward, schema=f"(Tensor image, *, {_OPTIONS[name]}) -> Tensor")
    return registered  # type: ignore[no-any-return]


anisotropic_diffusion = _register("anisotropic_diffusion")
bilateral = _register("bilateral")
gaussian = _register("gaussian")
guided_filter = _register("guided_filter")
median = _register("median")
non_local_means = _register("non_local_means")
obnlm = _register("obnlm")
srad = _register("srad")
total_variation = _register("total_variation")
