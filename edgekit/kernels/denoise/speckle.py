"""Speckle, by the method that is named."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from edgekit.errors import KernelError, did_you_mean
from edgekit.kernels.checks import check_choice
from edgekit.kernels.denoise.obnlm import obnlm
from edgekit.kernels.denoise.srad import srad
from edgekit.spec import Array

_METHODS: dict[str, Callable[..., Any]] = {"obnlm": obnlm, "srad": srad}


def speckle_reduce(image: Array, *, method: str = "obnlm", **options: Any) -> Any:
    """Take speckle away from an ultrasound image.

    - ``"obnlm"`` is :func:`edgekit.kernels.obnlm`: means of blocks that are alike. It keeps texture and fine
      edges best, and is for images as they are shown, compressed by a logarithm. ``sigma`` is ``"estimate"``
      unless it is given.
    - ``"srad"`` is :func:`edgekit.kernels.srad`: diffusion that stops at edges. It is faster, smooths more,
      and is for linear intensities.

    Args:
        image: [H, W] or [D, H, W], or a batch with ``spatial_ndim``.
        method: ``"obnlm"`` or ``"srad"``.
        options: Those of the method, ``out``, ``threads`` and ``spatial_ndim`` among them.

    Returns:
        ``out``, or a new array like ``image``.

    Raises:
        KernelError: An argument is not as the method describes it, or is none of its.
    """
    check_choice(method, "method", tuple(_METHODS), where="speckle_reduce")
    function = _METHODS[method]
    known = tuple(inspect.signature(function).parameters)[1:]
    for name in options:
        if name not in known:
            near = did_you_mean(name, ("method", *known))
            raise KernelError(
                f"{method} has no option {name!r}: want {', '.join(known)}",
                where="speckle_reduce",
                hint=f"did you mean {near!r}?" if near else None,
            )
    if method == "obnlm":
        options.setdefault("sigma", "estimate")
    return function(image, **options)
