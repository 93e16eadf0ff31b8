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
        required: Options that have no default, with their types.
        numbers: Options whose default is a word, and that may be a float as well.
    """

    name: str
    inputs: int
    run: StepFunction
    infer: Callable[[tuple[TensorSpec, ...], Mapping[str, Option]], tuple[TensorSpec, ...]]
    defaults: dict[str, Option] = field(default_factory=dict)
    required: dict[str, type[Option]] = field(default_factory=dict)
    numbers: frozenset[str] = frozenset()

    def types(self, option: str) -> tuple[type[Option], ...]:
        """What an option that there is may be. A text is read as the last of them that it fits."""
        kind = self.required.get(option) or type(self.defaults[option])
        return (kind, float) if option in self.numbers else (kind,)

    def options(self, step: Step) -> dict[str, Option]:
        """The step's options with defaults filled in.

        Raises:
            SpecError: An unknown option, or one of another type.
        """
        known = (*self.required, *self.defaults)
        for name, value in step.options.items():
            if name not in known:
                near = did_you_mean(name, known)
                raise SpecError(
                    f"step {self.name} has no option {name!r}: want {', '.join(known) or 'none'}",
                    where=str(step),
                    hint=f"did you mean {near!r}?" if near else None,
                )
            if type(value) not in self.types(name):
                want = " or ".join(kind.__name__ for kind in self.types(name))
                raise SpecError(
                    f"option {name!r} of step {self.name}: want {want}, got {value!r}", where=str(step)
                )
        for name, kind in self.required.items():
            if name not in step.options:
                raise SpecError(
                    f"step {self.name} wants option {name!r}, a {kind.__name__}",
                    where=str(step),
                    hint=f"{name}=1" if kind is not str else None,
                )
        return {**self.defaults, **step.options}
