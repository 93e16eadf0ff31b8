"""The command line: ``edgekit <verb> <object> [--options]``.

The list of commands is a table, so ``edgekit --help`` imports none of them; a command imports what it needs
when it runs. Results go to stdout, everything else to stderr; errors are three lines and an exit code (the
table stands in :mod:`edgekit.errors`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from types import FrameType

import click

from edgekit._version import __version__
from edgekit.cli import output
from edgekit.errors import UsageError, did_you_mean
from edgekit.registry import resolve

# In the order of the flow. The text is the first line of the command's own help (a test compares them).
COMMANDS: dict[str, tuple[str, str]] = {
    "prune": (
        "edgekit.cli.prune:command",
        "Cut channels until a network is as much faster as wanted.",
    ),
    "distil": (
        "edgekit.cli.distil:command",
        "Train compressed weights to do what the original ones do.",
    ),
    "check": (
        "edgekit.cli.check:command",
        "Say whether a model builds for a device, and where its layers run.",
    ),
    "compile": ("edgekit.cli.compile:command", "Compile a model for a device and prove what came out."),
    "run": ("edgekit.cli.run:command", "Run a bundle on images or arrays."),
    "profile": ("edgekit.cli.profile:command", "Measure how long a bundle takes, every sample kept."),
    "diff": ("edgekit.cli.diff:command", "Find the first layer where a bundle leaves its model."),
    "inspect": ("edgekit.cli.inspect:command", "Show what a bundle says about itself."),
    "verify": ("edgekit.cli.verify:command", "Check that every byte of a bundle is what its manifest says."),
    "finalize": (
        "edgekit.cli.finalize:command",
        "Build a bundle's engine on this device, prove it, and keep it.",
    ),
    "deploy": ("edgekit.cli.deploy:command", "Put a bundle on a device, and have it prove itself there."),
    "targets": ("edgekit.cli.targets:command", "List the known devices, or show one."),
    "doctor": ("edgekit.cli.doctor:command", "Say what works here, what is missing and how to get it."),
    "demo": ("edgekit.cli.demo:command", "Do the whole job on real images that ship with dependencies."),
}

_INTERRUPTED = 130
_READER_GONE = 141  # as a process that SIGPIPE ends


class _Commands(click.Group):
    """A group whose members are imported only when one is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = resolve(COMMANDS[cmd_name][0])
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-") and not ctx.resilient_parsing:
            near = did_you_mean(args[0], COMMANDS)
            raise UsageError(
                f"unknown command {args[0]!r}: want one of {', '.join(COMMANDS)}",
                where="edgekit",
                hint=f"edgekit {near}" if near else "edgekit --help",
            )
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(__version__, prog_name="edgekit", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@click.pass_context
def edgekit(ctx: click.Context) -> None:
    """Compile trained medical-imaging models for point-of-care devices, and prove what the result does."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code. Raises nothing."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "_EDGEKIT_COMPLETE" in os.environ:
        edgekit.main(prog_name="edgekit")  # the shell asks for completions; click answers and exits
    interrupts: list[int] = []
    try:
        with _noting_interrupts(interrupts):
            code = _call(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # The reader left on purpose (| head); what is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _READER_GONE
    except (KeyboardInterrupt, click.Abort):
        return output.interrupted(_INTERRUPTED, as_json="--json" in arguments)
    except Exception as error:  # noqa: BLE001 - this is where all errors end
        if interrupts:
            return output.interrupted(_INTERRUPTED, as_json="--json" in arguments)
        called = [word for word in arguments if word in COMMANDS][:1]
        return output.fail(
            _explain(error),
            help_line=" ".join(["edgekit", *called, "--help"]),
            as_json="--json" in arguments,
            with_traceback="--debug" in arguments,
        )


@contextlib.contextmanager
def _noting_interrupts(interrupts: list[int]) -> Iterator[None]:
    """Note Ctrl-C: native code that is interrupted while it loads raises errors of its own."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _call(arguments: Sequence[str]) -> int:
    try:
        with edgekit.make_context("edgekit", list(arguments)) as ctx:
            code = edgekit.invoke(ctx)
            return code if isinstance(code, int) else 0
    except click.exceptions.Exit as done:
        return done.exit_code


def _explain(error: Exception) -> Exception:
    """What the user is told of it: click's own errors and those of the system as edgekit's."""
    if isinstance(error, click.ClickException):
        return _from_click(error)
    return output.from_system(error)


def _from_click(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "edgekit"
    hint = f"{path} --help"
    message = error.format_message()
    if isinstance(error, click.NoSuchOption):
        message = f"no such option: {error.option_name}"
        if error.possibilities:
            hint = f"did you mean {sorted(error.possibilities)[0]}?"
    translated = UsageError(message.rstrip("."), where=path, hint=hint)
    translated.__cause__ = error
    return translated
