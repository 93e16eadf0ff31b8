"""How a module is called: inputs by name, outputs by name, and the contracts of both."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from typing import Any

from torch import Tensor, nn

from edgekit.errors import SpecError
from edgekit.graph import interface
from edgekit.spec import LAYOUTS, Array, TensorSpec


def input_specs(
    module: nn.Module, shapes: Mapping[str, str], samples: Mapping[str, Array], where: str
) -> tuple[TensorSpec, ...]:
    """Contracts of the inputs, in the order of ``forward``'s parameters.

    Args:
        module: The module.
        shapes: Shape of each input by name, as ``--shape`` takes it; that of the only input may be under "".
        samples: Arrays whose types are the inputs' types; float32 without.
        where: The module's name, for messages.

    Raises:
        SpecError: A shape is missing, or the samples are not one for each input.
    """
    known = parameter_names(module, required=False) or list(shapes)
    names = input_names(module, list(shapes))
    given = interface.read_shapes(shapes, names if "" in shapes else known)
    missing = [name for name in names if name not in given]
    if missing or not names:
        raise SpecError(
            f"a module does not say its inputs' shapes: none given for {', '.join(missing) or 'any'}",
            where=where,
            hint=" ".join(f"--shape {name}=1x1x96x96x96" for name in missing or ["name"]),
        )
    if samples and set(samples) != set(names):
        raise SpecError(
            f"want one sample for each input: {', '.join(names)}; got {', '.join(samples)}", where=where
        )
    return tuple(
        TensorSpec(
            name,
            samples[name].dtype.name if name in samples else "float32",
            given[name],
            LAYOUTS.get(len(given[name]), ""),
        )
        for name in names
    )


def input_names(module: nn.Module, given: Sequence[str]) -> list[str]:
    """Names of the inputs in the order of ``forward``: optional ones where they are among the given."""
    wanted = set(parameter_names(module, required=True))
    every = parameter_names(module, required=False)
    return [name for name in every if name in wanted or name in given] or every or list(given)


def parameter_names(module: nn.Module, *, required: bool) -> list[str]:
    """Names of ``forward``'s parameters, or of those without a default alone; none for ``*args``."""
    parameters = inspect.signature(module.forward).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [p.name for p in named if p.default is p.empty or not required]


class Flat(nn.Module):
    """The module with positional inputs and a flat tuple of outputs, whatever its ``forward`` looks like."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        parameters = inspect.signature(module.forward).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            self.keywords: tuple[str, ...] = ()
            return
        # By position as far as it goes: the module of a .pt2 file takes no keywords.
        order = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        leading = takewhile(lambda pair: pair[0] == pair[1], zip(names, order, strict=False))
        self.keywords = tuple(names[len(list(leading)) :])

    def call(self, *tensors: Tensor) -> Any:
        """Whatever the module gives for its inputs in order."""
        split = len(tensors) - len(self.keywords)
        return self.module(*tensors[:split], **dict(zip(self.keywords, tensors[split:], strict=True)))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The module's outputs in order."""
        return tuple(named_outputs(self.module, self.call(*tensors)).values())


def named_outputs(module: nn.Module, result: Any) -> dict[str, Any]:
    """Outputs by name: keys of a dictionary, fields of a named tuple, else ``output`` or ``output_0`` ….

    A module may name the members of a plain tuple in an attribute ``output_names``.
    """
    if isinstance(result, Mapping):
        return {str(name): value for name, value in result.items()}
    if hasattr(result, "_fields"):
        return result._asdict()  # type: ignore[no-any-return]
    values = list(result) if isinstance(result, (tuple, list)) else [result]
    names = getattr(module, "output_names", None)
    if isinstance(names, (tuple, list)) and len(names) == len(values):
        return dict(zip(map(str, names), values, strict=True))
    if len(values) == 1:
        return {"output": values[0]}
    return {f"output_{index}": value for index, value in enumerate(values)}


@contextlib.contextmanager
def for_inference(module: nn.Module) -> Iterator[None]:
    """Without dropout and with the recorded statistics; the module is given back as it was."""
    training = {part: part.training for part in module.modules()}
    try:
        module.eval()
    except NotImplementedError:  # the module of a .pt2 file, whose mode was fixed when it was made
        yield
        return
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode
