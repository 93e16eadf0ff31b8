"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgekit.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from edgekit.target import Target

Function = Callable[..., Any]


def command(name: str) -> Callable[[Function], click.Command]:
    """A command with the options that every command has: ``--json``, ``--debug``, ``-h``."""

    def decorate(function: Function) -> click.Command:
        made = click.command(name, context_settings={"help_option_names": ["-h", "--help"]})(function)
        made.params += [
            click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document on stdout."),
            click.Option(
                ["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."
            ),
        ]
        return made

    return decorate


def bundle_argument(function: Function) -> Function:
    """The bundle that a command works on."""
    return click.argument("bundle", type=click.Path(path_type=Path), shell_complete=_complete_files)(function)


def network_option(function: Function) -> Function:
    """Which of the bundle's networks."""
    return click.option(
        "--network",
        default="",
        metavar="NAME",
        help="Of the bundle's networks this one; the first that runs here otherwise.",
    )(function)


def jetpack_option(function: Function) -> Function:
    """The JetPack of a Jetson, where it is not the one that the target names; see :func:`target`."""
    return click.option(
        "--jetpack",
        metavar="VERSION",
        help="JetPack on the Jetson, such as 5.1, 6.2 or 7.2; by default the one that the target names.",
        shell_complete=_complete_jetpacks,
    )(function)


def target(name: str, jetpack: str | None = None) -> Target:
    """The target of this name, alias or file, with the JetPack that ``--jetpack`` names.

    Raises:
        TargetError: There is no such target, or it does not run that JetPack.
    """
    from edgekit import target as targets

    found = targets.find(name)
    return found if jetpack is None else targets.with_jetpack(found, jetpack)


def threads_option(function: Function) -> Function:
    """Threads to use."""
    return click.option(
        "--threads", type=click.IntRange(0, 1024), default=0, help="Threads to use; 0 for all.", metavar="N"
    )(function)


def inputs_option(text: str, metavar: str = "[NAME=]FILE") -> Callable[[Function], Function]:
    """Repeatable ``--input [NAME=]FILE``."""
    return click.option(
        *("-i", "--input", "inputs"),
        multiple=True,
        metavar=metavar,
        help=text,
        shell_complete=_complete_files,
    )


def shapes_option(text: str) -> Callable[[Function], Function]:
    """Repeatable ``--shape [NAME=]1x1x96x96``."""
    return click.option("-s", "--shape", "shapes", multiple=True, metavar="[NAME=]SHAPE", help=text)


def task_options(function: Function) -> Function:
    """Labelled cases, and what a model has to keep on them; see :func:`gates`."""
    drop: dict[str, Any] = {"multiple": True, "metavar": "[METRIC=]X[%]"}
    for option in reversed(
        (
            click.option(
                "--cases",
                type=click.Path(path_type=Path),
                metavar="FILE",
                help="CSV file of labelled cases: columns for inputs, results, case and group.",
            ),
            click.option(
                "--metric",
                "metrics",
                multiple=True,
                metavar="METRIC",
                help="What to keep on them, such as dice or 'dice mask'; repeat it for more.",
            ),
            click.option("--max-drop", **drop, help="Largest drop of the metric over all cases."),
            click.option("--max-case-drop", **drop, help="Largest drop in any one case."),
            click.option("--max-group-drop", **drop, help="Largest drop in any group of cases."),
            click.option("--margin", **drop, help="Non-inferiority: the drop's interval lies below it."),
            click.option(
                "--worst-value",
                multiple=True,
                metavar="[METRIC=]X",
                help="The metric itself may be no worse.",
            ),
            click.option(
                "--min-cases", type=click.IntRange(1), default=10, metavar="N", help="Fewest cases."
            ),
            click.option(
                "--confidence",
                type=click.FloatRange(0.5, 1, max_open=True),
                default=0.95,
                metavar="X",
                help="Of intervals.",
            ),
        )
    ):
        function = option(function)
    return function


def gates(metrics: Sequence[str], **limits: Any) -> tuple[Any, ...]:
    """The gates that :func:`task_options` describe.

    Raises:
        UsageError: One that cannot be read; see :func:`edgekit.gates.parse`.
    """
    from edgekit import gates as parser

    return parser.parse(metrics, **limits)


def force_option(function: Function) -> Function:
    """Whether existing files may be replaced."""
    return click.option("-f", "--force", is_flag=True, help="Replace existing files.")(function)


def named_values(option: str, values: Iterable[str], *, example: str) -> dict[str, str]:
    """Read ``NAME=VALUE`` texts.

    Raises:
        UsageError: One has no name or no value, or a name occurs twice.
    """
    found: dict[str, str] = {}
    for text in values:
        name, separator, value = text.partition("=")
        if not separator or not name or not value:
            raise UsageError(f"want NAME=VALUE, got {text!r}", where=option, hint=f"{option} {example}")
        _put(found, name, value, option)
    return found


def backend_options(option: str, values: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Read ``BACKEND.NAME=VALUE`` texts; the backend says what type a value has.

    Raises:
        UsageError: No such backend or option, or a value of another type.
    """
    from edgekit.backends import BACKENDS

    found: dict[str, dict[str, Any]] = {}
    for text, value in named_values(option, values, example="tvm.tune_s=60").items():
        backend, _, name = text.partition(".")
        known = BACKENDS[backend].options
        kind = type(known[known_name(option, name, list(known), kind=f"option of {backend}")])
        found.setdefault(backend, {})[name] = _converted(option, text, value, kind)
    return found


def _converted(option: str, name: str, value: str, kind: type) -> Any:
    if kind is bool:
        if value not in ("true", "false"):
            raise UsageError(f"want true or false, got {value!r}", where=f"{option} {name}")
        return value == "true"
    try:
        return kind(value)
    except ValueError:
        wanted = {int: "an integer", float: "a number"}[kind]
        raise UsageError(f"want {wanted}, got {value!r}", where=f"{option} {name}") from None


def files_by_name(option: str, values: Iterable[str], names: Sequence[str], *, kind: str) -> dict[str, Path]:
    """Read ``[NAME=]FILE`` texts; the name may be left out where there is only one.

    Args:
        option: The option, for messages.
        values: What was typed.
        names: The known names.
        kind: What the names are, for messages: ``"input"``.

    Raises:
        UsageError: An unknown name, a name that is missing or occurs twice.
    """
    found: dict[str, str] = {}
    for text in values:
        name, separator, value = text.partition("=")
        if not separator or (name not in names and Path(text).exists()):
            name, value = _only(names, option, kind, text), text
        _put(found, known_name(option, name, names, kind=kind), value, option)
    return {name: Path(value) for name, value in found.items()}


def known_name(option: str, name: str, names: Sequence[str], *, kind: str) -> str:
    """The name, if it is one of ``names``.

    Raises:
        UsageError: It is not; the hint names the nearest.
    """
    if name not in names:
        near = did_you_mean(name, names)
        raise UsageError(
            f"unknown {kind} {name!r}: want one of {', '.join(names)}",
            where=option,
            hint=f"did you mean {near!r}?" if near else None,
        )
    return name


def _only(names: Sequence[str], option: str, kind: str, text: str) -> str:
    if len(names) != 1:
        raise UsageError(
            f"which {kind} is it? want one of {', '.join(names)}",
            where=f"{option} {text}",
            hint=f"{option} {names[0]}={text}",
        )
    return names[0]


def _put(found: dict[str, str], name: str, value: str, option: str) -> None:
    if name in found:
        raise UsageError(f"{name!r} is given twice: {found[name]!r} and {value!r}", where=option)
    found[name] = value


def _complete_jetpacks(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from edgekit.jetpack import JETPACKS

    return [version for version in JETPACKS if version.startswith(incomplete)]


def _complete_files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[Any]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="file")]
