"""Steps as people type them: ``median image radius=2``."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from edgekit.errors import SpecError, UsageError
from edgekit.spec import Step
from edgekit.steps import STEPS
from edgekit.steps.base import Option, StepKind

_EXAMPLE = "median image radius=2"
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_TRUTH = {"true": True, "false": False}


def parse(text: str) -> Step:
    """Read ``OP [INPUT …] [OPTION=VALUE …]``; words with ``=`` are options, wherever they stand.

    What the step makes takes the place of its first input. Where no input is named, the step has neither
    inputs nor outputs: whoever knows the model fills them in.

    Raises:
        UsageError: No words, an unknown step or option, an option that is given twice, or a value that is
            not of the type of the option's default.
    """
    op, inputs, given = split(text)
    try:
        kind = STEPS[op]
    except UsageError as error:
        raise UsageError(error.message, where=text, hint=error.hint) from None
    known = (*kind.required, *kind.defaults)
    options = {name: _read(kind, name, v, text) if name in known else v for name, v in given.items()}
    step = Step(op, inputs, inputs[:1], options)
    try:
        kind.options(step)
    except SpecError as error:
        raise UsageError(error.message, where=text, hint=error.hint) from None
    return step


def split(text: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """The name, the inputs and the options of a step, as they stand in its text.

    Raises:
        UsageError: No words, or an option without a name or a value, or one that is given twice.
    """
    words = text.split()
    if not words or "=" in words[0]:
        raise UsageError(
            f"want a step's name, its input and its options, got {text!r}", where="step", hint=_EXAMPLE
        )
    options: dict[str, str] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals:
            continue
        if not name or not value:
            raise UsageError(f"want OPTION=VALUE, got {word!r}", where=text, hint=_EXAMPLE)
        if name in options:
            raise UsageError(f"option {name!r} is given twice", where=text, hint="leave one of the two out")
        options[name] = value
    return words[0], tuple(word for word in words[1:] if "=" not in word), options


def _read(kind: StepKind, name: str, text: str, where: str) -> Option:
    """The value of an option, as one of the types that it may have."""
    types = kind.types(name)
    for wanted in reversed(types):
        value: Option | None = _READERS[wanted](text)
        if value is not None:
            return value
    default = kind.defaults.get(name)
    want = " or ".join("true or false" if each is bool else each.__name__ for each in types)
    shown = str(default).lower() if isinstance(default, bool) else default
    raise UsageError(
        f"option {name!r} of step {kind.name}: want {want}, got {text!r}",
        where=where,
        hint=None if default is None else f"{name}={shown}, the default",
    )


def _integer(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) else None


def _finite(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in text else None


_READERS: Mapping[type[Option], Callable[[str], Option | None]] = {
    bool: _TRUTH.get,
    int: _integer,
    float: _finite,
    str: str,
}
