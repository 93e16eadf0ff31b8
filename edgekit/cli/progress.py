"""What is going on, on stderr: a moving line on a terminal, one plain line for each phase elsewhere."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING

from edgekit.cli import output

if TYPE_CHECKING:
    from rich.progress import Progress as Display

_REFRESHES_PER_S = 4


class Progress:
    """Show phases while work is going on; call it with the text of each new phase.

    While it is open, whatever is printed on stdout goes to stderr: a vendor's library may print, and stdout
    is for the result.

    Args:
        ticking: Whether a thread keeps the line moving. Not while times are measured: it would disturb them.
    """

    def __init__(self, *, ticking: bool = True) -> None:
        self._ticking = ticking
        self._shown_s = 0.0
        self._phase = ""
        self._display: Display | None = None
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> Progress:
        if output.uses_colour(sys.stderr):
            self._display = self._exit.enter_context(_display(self._ticking))
        self._exit.enter_context(_stdout_to_stderr())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.close()

    def __call__(self, phase: str, done: float | None = None) -> None:
        """A phase has begun or moved on.

        Args:
            phase: What is being done.
            done: Share that is done, 0 … 1, where it is known.
        """
        phase = output.clean(phase)
        if self._display is None:
            if phase != self._phase:
                print(f"{phase} …", file=sys.stderr, flush=True)
            self._phase = phase
            return
        if phase != self._phase:
            for task in self._display.task_ids:
                self._display.remove_task(task)
            self._display.add_task(phase, total=None if done is None else 1.0)
        self._phase = phase
        now_s = time.monotonic()
        if done is not None:
            self._display.update(self._display.task_ids[0], completed=done)
        if not self._ticking and (done is None or now_s - self._shown_s > 1 / _REFRESHES_PER_S):
            self._display.refresh()
            self._shown_s = now_s


def _display(ticking: bool) -> Display:
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Display

    return Display(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        console=Console(file=sys.stderr),
        transient=True,
        auto_refresh=ticking,
        refresh_per_second=_REFRESHES_PER_S,
        redirect_stdout=False,
        redirect_stderr=False,
    )


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Send stdout to stderr, what native code writes included."""
    sys.stdout.flush()
    try:
        stdout, stderr = sys.__stdout__.fileno(), sys.__stderr__.fileno()  # type: ignore[union-attr]
        saved = os.dup(stdout)
    except (OSError, ValueError, AttributeError):  # closed, or no files at all
        saved = None
    try:
        with contextlib.redirect_stdout(sys.stderr):
            if saved is not None:
                os.dup2(stderr, stdout)
            yield
    finally:
        if saved is not None:
            # The C library keeps what was printed into a pipe until it is flushed.
            with contextlib.suppress(OSError, AttributeError):
                ctypes.CDLL(None).fflush(None)
            os.dup2(saved, stdout)
            os.close(saved)
