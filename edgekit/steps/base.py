"""What a step is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from edgekit.errors import SpecError, did_you_mean
from edgekit.spec import Array, Step, TensorSpec

Option = int | float | str | bool


class StepFunction(Protocol):
    """``run(arrays, options, threads) -> arrays``, in the order of the step's inputs and outputs."""

    def __call__(
        self, arrays: tuple[Array, ...], options: Mapping[str, Option], threads: int
    ) -> tuple[Array, ...]:
        """Do the step."""


@dataclass(frozen=True)
class StepKind:
    """One kind of step.

    Attributes:
        name: Name in the registry; in the ONNX domain ``edgekit`` the operator is ``IntegrateVelocity``.
        inputs: Number of tensors it reads.
        run: Does it.
        infer: Contracts of the outputs from those of the inputs; raises SpecError where they do not fit.
        defaults: Every option with its default; a step with another option, or of another type, is refused.
    """

    name: str
    inputs: int
    run: StepFunction
    infer: Callable[[tuple[TensorSpec, ...], Mapping[str, Option]], tuple[TensorSpec, ...]]
    defaults: dict[str, Option] = field(default_factory=dict)

    def options(self, step: Step) -> dict[str, Option]:
        """The step's options with defaults filled in.

        Raises:
            SpecError: An unknown option, or one of another type.
        """
        for name, value in step.options.items():
            if name not in self.defaults:
                near = did_you_mean(name, self.defaults)
                raise SpecError(
                    f"step {self.name} has no option {name!r}: want {', '.join(self.defaults) or 'none'}",
                    where=str(step),
                    hint=f"did you mean {near!r}?" if near else None,
                )
            if type(value) is not type(self.defaults[name]):
                want = type(self.defaults[name]).__name__
                raise SpecError(
                    f"option {name!r} of step {self.name}: want {want}, got {value!r}", where=str(step)
                )
        return {**self.defaults, **step.options}
