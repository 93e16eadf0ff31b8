"""Steps of deformable registration, on the kernels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgekit import kernels
from edgekit.errors import SpecError
from edgekit.kernels.integrate import MAX_STEPS
from edgekit.kernels.interpolation import BOUNDARIES, ORDERS
from edgekit.spec import Array, TensorSpec
from edgekit.steps.base import Option, StepKind


def _run_warp(arrays: tuple[Array, ...], options: Mapping[str, Option], threads: int) -> tuple[Array, ...]:
    image, flow_vox = arrays
    order, boundary = int(options["order"]), str(options["boundary"])
    return (kernels.warp(image, flow_vox, order=order, boundary=boundary, threads=threads or None),)


def _infer_warp(specs: tuple[TensorSpec, ...], options: Mapping[str, Option]) -> tuple[TensorSpec, ...]:
    image, flow = specs
    _require_flow(flow)
    _require_choice("order", options, ORDERS)
    _require_choice("boundary", options, BOUNDARIES)
    if image.dtype != "float32":
        raise SpecError(f"an image wants float32, got {image}")
    if image.dims[2:] != flow.dims[2:] or image.dims[:1] != flow.dims[:1]:
        raise SpecError(f"image and displacement want one batch and one grid, got {image} and {flow}")
    return (image,)


def _run_integrate(
    arrays: tuple[Array, ...], options: Mapping[str, Option], threads: int
) -> tuple[Array, ...]:
    steps, boundary = int(options["steps"]), str(options["boundary"])
    return (kernels.integrate_velocity(arrays[0], steps=steps, boundary=boundary, threads=threads or None),)


def _infer_integrate(specs: tuple[TensorSpec, ...], options: Mapping[str, Option]) -> tuple[TensorSpec, ...]:
    _require_flow(specs[0])
    _require_choice("boundary", options, BOUNDARIES)
    _require_choice("steps", options, range(MAX_STEPS + 1))
    return specs


def _require_flow(flow: TensorSpec) -> None:
    axes = len(flow.dims) - 2
    if axes not in (2, 3) or flow.dims[1] != axes or flow.dtype != "float32":
        raise SpecError(f"a displacement wants float32 of the shape Nx2xHxW or Nx3xDxHxW, got {flow}")


def _require_choice(name: str, options: Mapping[str, Option], choices: Sequence[Option]) -> None:
    if options[name] not in choices:
        known = choices if len(choices) < 5 else (choices[0], "…", choices[-1])
        raise SpecError(f"{name} wants one of {', '.join(map(str, known))}, got {options[name]!r}")


WARP = StepKind("warp", 2, _run_warp, _infer_warp, {"order": 1, "boundary": "edge"})
INTEGRATE_VELOCITY = StepKind(
    "integrate_velocity", 1, _run_integrate, _infer_integrate, {"steps": 7, "boundary": "edge"}
)
