"""What a bundle does around its network, by name. One function and one line here add a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgekit.errors import SpecError, did_you_mean
from edgekit.registry import Registry
from edgekit.spec import Step, TensorSpec
from edgekit.steps.base import StepKind

STEPS: Registry[StepKind] = Registry(
    "step",
    {
        "warp": "edgekit.steps.registration:WARP",
        "integrate_velocity": "edgekit.steps.registration:INTEGRATE_VELOCITY",
        "anisotropic_diffusion": "edgekit.steps.denoising:ANISOTROPIC_DIFFUSION",
        "bilateral": "edgekit.steps.denoising:BILATERAL",
        "gaussian": "edgekit.steps.denoising:GAUSSIAN",
        "guided_filter": "edgekit.steps.denoising:GUIDED_FILTER",
        "median": "edgekit.steps.denoising:MEDIAN",
        "non_local_means": "edgekit.steps.denoising:NON_LOCAL_MEANS",
        "obnlm": "edgekit.steps.denoising:OBNLM",
        "srad": "edgekit.steps.denoising:SRAD",
        "total_variation": "edgekit.steps.denoising:TOTAL_VARIATION",
    },
)


def infer(
    steps: Sequence[Step], known: Mapping[str, TensorSpec], *, in_place: bool = False
) -> dict[str, TensorSpec]:
    """Contracts of all tensors when the steps have run, by name.

    Args:
        steps: In order.
        known: Contracts of the tensors that there are before.
        in_place: Whether what a step makes may take the place of a tensor that is there, as it may before
            the network.

    Raises:
        UsageError: An unknown step.
        SpecError: A step that reads a tensor that is not there, makes one that is, or does not fit.
    """
    specs = dict(known)
    for step in steps:
        kind = STEPS[step.op]
        for name in step.inputs:
            if name not in specs:
                near = did_you_mean(name, specs)
                raise SpecError(
                    f"a step reads {name!r}, which nothing has made: there are {', '.join(specs)}",
                    where=str(step),
                    hint=f"did you mean {near!r}?" if near else None,
                )
        if len(step.inputs) != kind.inputs:
            raise SpecError(
                f"step {kind.name} wants {kind.inputs} inputs, got {len(step.inputs)}", where=str(step)
            )
        read = tuple(specs[name] for name in step.inputs)
        try:
            made = kind.infer(read, kind.options(step))
        except SpecError as error:
            raise SpecError(error.message, where=str(step), hint=error.hint) from None
        if len(step.outputs) != len(made):
            raise SpecError(
                f"step {kind.name} makes {len(made)} tensors, got {len(step.outputs)} names", where=str(step)
            )
        for name, spec in zip(step.outputs, made, strict=True):
            if name in specs and not in_place:
                raise SpecError(f"a step makes {name!r}, which is there already", where=str(step))
            specs[name] = replace(spec, name=name)
    return specs
