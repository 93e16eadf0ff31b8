"""What holds for every command: speed of the help, errors, exit codes, JSON on stdout and nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from edgekit import target as targets
from edgekit.cli import COMMANDS, edgekit, main, output
from edgekit.cli.progress import Progress
from edgekit.errors import (
    CorruptError,
    GateError,
    InternalError,
    LimitError,
    SpecError,
    UnavailableError,
    UsageError,
)
from edgekit.registry import resolve

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")
HEAVY = {
    "numpy",
    "rich",
    "onnx",
    "onnx_ir",
    "onnxscript",
    "torch",
    "onnxruntime",
    "openvino",
    "tvm",
    "pydicom",
}


def assert_three_lines(err: str) -> tuple[str, str, str]:
    lines = [line for line in err.splitlines() if re.match("error:|where:|hint:", line)]
    assert [line.split(":")[0] for line in lines] == ["error", "where", "hint"], err
    assert re.search(r"\[EK\d{4}\]$", lines[0])
    return lines[0], lines[1], lines[2]


def python(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from edgekit.cli import main; code = main(sys.argv[1:]); "
        "sys.stderr.write(' '.join(m for m in sys.modules if '.' not in m)); sys.exit(code)"
    )
    done = python("-c", code, *arguments)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stderr.split())


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    without = capsys.readouterr().out
    assert main(["--help"]) == 0
    assert capsys.readouterr().out == without
    for name, (_, text) in COMMANDS.items():
        assert re.search(rf"^  {name} +{re.escape(text)}$", without, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command(name: str) -> None:
    path, text = COMMANDS[name]
    command = resolve(path)
    assert isinstance(command, click.Command) and command.name == name
    assert (command.help or "").splitlines()[0] == text
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--debug"} <= options
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts} says nothing in --help"


def test_the_options_are_the_documented_ones() -> None:
    """A script that somebody wrote against a release goes on working: names do not vanish."""
    documented = {
        "compile": "--target --shape --weights --trust --before --backend --input --max-abs-error "
        "--min-snr-db --threads --output --force --plan --name --intended-use --time-limit-s "
        "--memory-limit-mib",
        "run": "--input --output --grid-of --threads --force",
        "profile": "--input --shape --threads --runs --seconds",
        "demo": "--output",
    }
    for name, options in documented.items():
        command = resolve(COMMANDS[name][0])
        assert set(options.split()) <= {option for p in command.params for option in p.opts}


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["comple"], "edgekit compile"),
        (["targest"], "edgekit targets"),
        (["xyzzy"], "edgekit --help"),
        (["compile", "m.onnx", "--bakend", "tvm"], "did you mean --backend?"),
        (["targets", "--josn"], "did you mean --json?"),
        (["--vresion"], "did you mean --version?"),
        (["compile"], "edgekit compile --help"),
        (["compile", "m.onnx", "--threads", "many"], "edgekit compile --help"),
        (["profile", "m.ekb", "--seconds", "0"], "edgekit profile --help"),
        (["targets", "a", "b"], "edgekit targets --help"),
        (["targets", "jetsn"], "did you mean 'jetson'?"),
        (["compile", "m.onnx", "--shape", "1x1", "--shape", "2x2"], "--shape ct=1x1x96x96x96"),
        (["compile", "m.onnx", "--shape", "ct=1xx1"], None),
        (["compile", "m.onnx", "--input", "scan.nii.gz"], "--input ct=scan.nii.gz"),
        (["compile", "m.onnx", "--backend", "opnvino"], "did you mean 'openvino'?"),
        (["compile", "m.onnx", "--target", "intel-n10"], "did you mean 'intel-n100'?"),
        (["compile", "m.onnx", "--before", "wrap image flow"], "did you mean 'warp'?"),
        (["compile", "m.onnx", "--before", "zoo.denoise image"], "did you mean 'zoo.denoise2d'?"),
        (["compile", "m.onnx", "--before", "warp image flow ordr=1"], "did you mean 'order'?"),
        (["compile", "m.onnx", "--before", "warp image flow order=one"], "order=1, the default"),
        (["compile", "m.onnx", "--before", ""], "median image radius=2"),
    ],
)
def test_usage_errors(arguments: list[str], hint: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    _, _, hint_line = assert_three_lines(printed.err)
    assert hint is None or hint_line == f"hint: {hint}"
    assert not CONTROL.search(printed.err)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GateError("too far off"), 1),
        (UsageError("no"), 2),
        (SpecError("NaN"), 3),
        (UnavailableError("not here", hint="pip install 'edgekit[tvm]'"), 4),
        (CorruptError("damaged"), 5),
        (LimitError("too long"), 6),
        (MemoryError(), 6),
        (OSError(28, "No space left on device", "x.ekb"), 6),
        (PermissionError(13, "Permission denied", "x.ekb"), 2),
        (InternalError("we are wrong"), 70),
        (ZeroDivisionError("division by zero"), 70),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_exit_codes(
    error: Exception,
    code: int,
    as_json: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(targets, "find", fail)
    assert main(["targets", "x", *(["--json"] if as_json else [])]) == code
    printed = capsys.readouterr()
    first, _, hint = assert_three_lines(printed.err)
    assert "Traceback" not in printed.err
    if code == 70:
        assert "bug in edgekit" in first and "--debug" in hint
    if as_json:
        document = json.loads(printed.out)["error"]
        assert document["exit_code"] == code and f"[{document['id']}]" in first
        assert {"class", "error", "where", "hint"} <= document.keys()
    else:
        assert printed.out == ""


@pytest.mark.parametrize("arguments", [["--debug", "targets", "x"], ["targets", "x", "--debug"]])
def test_debug_shows_the_traceback(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(targets, "find", lambda name: 1 // 0)
    assert main(arguments) == 70
    printed = capsys.readouterr().err
    assert "Traceback" in printed and "ZeroDivisionError" in printed
    assert_three_lines(printed)


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(name: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(targets, "find", interrupt)
    assert main(["targets", "x", *(["--json"] if as_json else [])]) == 130
    printed = capsys.readouterr()
    assert printed.err == "interrupted\n"
    assert json.loads(printed.out)["error"]["exit_code"] == 130 if as_json else printed.out == ""


def test_an_interrupt_that_native_code_swallows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(name: str) -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("initialization failed") from None

    monkeypatch.setattr(targets, "find", load)
    before = signal.getsignal(signal.SIGINT)
    assert main(["targets", "x"]) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(signal.SIGINT) is before


def test_a_usage_error_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile", "--json"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["error"]["id"] == "EK1010"
    assert_three_lines(printed.err)


def test_text_from_elsewhere_cannot_drive_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(name: str) -> None:
        raise CorruptError("bad \x1b]0;name\x07 and\nmore \x9b31m", where="a\nfile\x1b[2J", hint="\u202eevil")

    monkeypatch.setattr(targets, "find", fail)
    assert main(["targets", "x"]) == 5
    printed = capsys.readouterr().err
    assert not CONTROL.search(printed) and "\u202e" not in printed
    assert_three_lines(printed)


class Terminal:
    """A stream that says that it is a terminal."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.text += text
        return len(text)

    def flush(self) -> None:
        pass


def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["targest"])
    assert "\x1b[" in terminal.text
    terminal.text = ""
    monkeypatch.setenv("NO_COLOR", "1")
    main(["targest"])
    assert terminal.text.startswith("error: ") and not CONTROL.search(terminal.text)


def test_progress_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with Progress(ticking=False) as progress:
        progress("load [bold]x[/bold]")
        progress("measure", 0.0)
        progress("measure", 1.0)
    assert "load [bold]x[/bold]" in terminal.text and "measure" in terminal.text


def test_progress_elsewhere_is_plain_lines(capfd: pytest.CaptureFixture[str]) -> None:
    with Progress() as progress:
        progress("load \x1b[2J")
        for share in (0.0, 0.5, 1.0):
            progress("measure", share)
        print("printed by Python")
        os.write(1, b"printed by a library\n")
    print("the result")
    printed = capfd.readouterr()
    assert printed.out == "the result\n"
    assert "printed by a library" in printed.err and "printed by Python" in printed.err
    assert printed.err.count("measure …") == 1 and not CONTROL.search(printed.err)


def test_a_reader_that_leaves_is_no_error() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "edgekit.cli", "targets", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(), err) == (141, b"")


def test_a_terminal_without_unicode(tmp_path: Path) -> None:
    code = "import sys; from edgekit.cli import output; output.say('5 µs …'); output.note('…')"
    done = python("-c", code, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stdout) == (0, "5 \\xb5s \\u2026\n")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (12.34, "12.3 s"),
        (1.0, "1 s"),
        (1.5, "1.5 s"),
        (0.0123, "12.3 ms"),
        (0.0009, "900 µs"),
        (1234.0, "1234 s"),
        (0.0, "0 µs"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert output.seconds(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1 << 20, "1 MiB"), (8 << 30, "8 GiB"), (1010 << 20, "1010 MiB")],
)
def test_size(value: int, text: str) -> None:
    assert output.size(value) == text
    assert output.seconds(float("nan")) == output.decibels(float("nan")) == "-"


def test_completion_knows_commands_and_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import ShellComplete

    complete = ShellComplete(edgekit, {}, "edgekit", "_EDGEKIT_COMPLETE")
    assert [item.value for item in complete.get_completions([], "in")] == ["inspect"]
    jetsons = [
        item.value for item in complete.get_completions(["compile", "m.onnx", "--target"], "jetson-th")
    ]
    assert jetsons == ["jetson-thor-t4000", "jetson-thor-t5000"]
