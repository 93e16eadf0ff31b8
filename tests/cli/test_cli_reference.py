"""``docs/cli.md`` is what the program says; ``python tests/cli/test_cli_reference.py`` writes it anew."""

from __future__ import annotations

from pathlib import Path

import click

from edgekit import errors
from edgekit.cli import COMMANDS
from edgekit.errors import EdgekitError, InternalError
from edgekit.registry import resolve

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"

HEAD = """# The command line

`edgekit <verb> <object> [--options]`. Results go to stdout, everything else to stderr. With `--json` stdout
holds one JSON document and nothing else, on errors too; its `schema` changes when a key changes its meaning.
Colours and moving lines appear on a terminal only, and not with `NO_COLOR`.

An error is three lines and an exit code; `--debug` adds the traceback:

```
error: unknown target 'jetsn': want one of … [EK1150]
where: --target
hint: did you mean 'jetson'?
```

| exit code | errors |
| --- | --- |
"""

MEANINGS = {
    0: "done",
    1: "a limit that you set was exceeded",
    2: "usage or configuration",
    3: "the input was refused",
    4: "a backend or a device is missing or failed",
    5: "integrity, format or signature of a bundle",
    6: "time, memory or disk ran out",
    70: "a bug in edgekit",
    130: "interrupted",
}


def reference() -> str:
    """The page."""
    classes = [kind for kind in map(errors.__dict__.get, errors.__all__) if isinstance(kind, type)]
    named: dict[int, list[str]] = {code: [] for code in MEANINGS}
    for kind in classes:
        if issubclass(kind, (EdgekitError, InternalError)):
            named[kind.exit_code].append(f"{kind.__name__} ({kind.id})")
    page = HEAD
    for code, meaning in MEANINGS.items():
        page += f"| {code} | {meaning}{': ' if named[code] else ''}{', '.join(named[code])} |\n"
    for name, (path, _) in COMMANDS.items():
        command: click.Command = resolve(path)
        context = command.make_context(
            f"edgekit {name}", [], resilient_parsing=True, terminal_width=100, max_content_width=100
        )
        page += f"\n## {name}\n\n```\n{command.get_help(context)}\n```\n"
    return page


def test_the_page_is_what_the_program_says() -> None:
    assert PAGE.read_text() == reference(), f"python {Path(__file__).relative_to(PAGE.parents[1])}"


if __name__ == "__main__":
    PAGE.write_text(reference())
