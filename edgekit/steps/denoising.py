"""Steps that take noise away from an image, on the kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from edgekit.errors import KernelError, SpecError
from edgekit.kernels.base import OPERATORS
from edgekit.kernels.checks import IMAGES
from edgekit.spec import Array, TensorSpec
from edgekit.steps.base import Option, StepKind


def _filter(
    operator: str,
    defaults: dict[str, Option],
    required: dict[str, type[Option]] | None = None,
    numbers: frozenset[str] = frozenset(),
) -> StepKind:
    """A step that is an operator of :mod:`edgekit.kernels` on one image: same name, same options."""

    def apply(image: Array, options: Mapping[str, Option], threads: int) -> Array:
        function: Callable[..., Array] = OPERATORS[operator].function
        return function(image, spatial_ndim=image.ndim - 2, threads=threads or None, **options)

    def run(arrays: tuple[Array, ...], options: Mapping[str, Option], threads: int) -> tuple[Array, ...]:
        return (apply(arrays[0], options, threads),)

    def infer(specs: tuple[TensorSpec, ...], options: Mapping[str, Option]) -> tuple[TensorSpec, ...]:
        (image,) = specs
        if len(image.dims) not in (4, 5) or image.dtype not in IMAGES:
            raise SpecError(
                f"an image wants the shape NxCxHxW or NxCxDxHxW and {' or '.join(IMAGES)}, got {image}"
            )
        try:  # what an operator refuses it also refuses for a small image
            apply(np.zeros((1, 1, *(8 for _ in image.dims[2:])), image.dtype), options, 1)
        except KernelError as error:
            raise SpecError(error.message, hint=error.hint) from None
        return specs

    return StepKind(operator, 1, run, infer, defaults, required or {}, numbers)


_EDGE: dict[str, Option] = {"boundary": "mirror"}

MEDIAN = _filter("median", {"radius": 1, **_EDGE})
GAUSSIAN = _filter("gaussian", {"truncate": 4.0, **_EDGE}, {"sigma": float})
BILATERAL = _filter("bilateral", _EDGE, {"radius": int, "sigma_space": float, "sigma_range": float})
GUIDED_FILTER = _filter("guided_filter", _EDGE, {"radius": int, "epsilon": float})
NON_LOCAL_MEANS = _filter(
    "non_local_means",
    {
        "sigma": "estimate",
        "patch_radius": 1,
        "search_radius": 5,
        "strength": 1.0,
        "method": "pointwise",
        "noise": "gaussian",
        **_EDGE,
    },
    numbers=frozenset({"sigma"}),
)
TOTAL_VARIATION = _filter("total_variation", {"iterations": 100, "method": "chambolle"}, {"weight": float})
OBNLM = _filter(
    "obnlm",
    {
        "sigma": "estimate",
        "patch_radius": 1,
        "search_radius": 5,
        "strength": 1.0,
        "floor": 1.0,
        **_EDGE,
    },
    numbers=frozenset({"sigma"}),
)
SRAD = _filter("srad", {"iterations": 20, "time_step": 0.5, "decay": 1 / 6})
ANISOTROPIC_DIFFUSION = _filter(
    "anisotropic_diffusion", {"iterations": 5, "conductance": 1.0, "form": "gradient"}
)
