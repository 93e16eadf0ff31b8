"""The library with edgekit's operators for the TensorRT of a target."""

from __future__ import annotations

from pathlib import Path

from edgekit.errors import CompileError, MismatchError, UnavailableError, UsageError
from edgekit.hosts import tensorrt as host
from edgekit.target import Target

FILE = host.FILE


def board_of(target: Target) -> tuple[str, host.Board]:
    """The name and the data of what the library is built for."""
    jetpack = target.software.get("jetpack")
    board = host.board_for(jetpack) if jetpack else host.BOARDS[target.arch]
    return next(name for name, known in host.BOARDS.items() if known == board), board


def build(target: Target, out: Path) -> str:
    """Build the library for a target, where headers and compilers are found.

    Args:
        target: The device.
        out: The file to write.

    Returns:
        Why it could not be built, or an empty text.
    """
    _, board = board_of(target)
    try:
        host.build_library(board, host.find_headers(), out)
    except (CompileError, MismatchError, UnavailableError, UsageError) as error:
        return error.message + (f" ({error.hint})" if error.hint else "")
    return ""


def missing(target: Target, operators: tuple[str, ...], reason: str) -> str:
    """What to tell where a network needs the library and the library could not be built."""
    name, board = board_of(target)
    return (
        f"the network needs plug-ins for {', '.join(operators)}, and {FILE} is not with it: {reason}. With "
        f"headers of TensorRT {board.tensorrt}: python -m edgekit.hosts.tensorrt --board {name} -o {FILE}, "
        f"then edgekit finalize BUNDLE --plugins {FILE}"
    )
