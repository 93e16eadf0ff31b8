"""``edgekit check``: will a model build for a device, and where will its layers run?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import args, output
from edgekit.cli.targets import complete_targets

if TYPE_CHECKING:
    from edgekit.check import Build, Check, Software

# Nodes that are named of many.
_SHOWN = 3
_REFUSED = 3


@args.command("check")
@click.argument("model")
@click.option(
    "-t",
    "--target",
    "name",
    default="cpu",
    show_default=True,
    metavar="NAME",
    help="Device.",
    shell_complete=complete_targets,
)
@args.jetpack_option
@click.option(
    "-b",
    "--backend",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto asks all that the target lists.",
)
@args.shapes_option("Shape of an input, such as ct=1x1x[32:128:16]x96x96.")
@click.option(
    "--weights",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Weights for a factory: .safetensors or .pt.",
)
@click.option("--trust", is_flag=True, help="Take in .pt2 files, which can execute code when they are read.")
def command(
    model: str,
    name: str,
    jetpack: str | None,
    backend: str,
    shapes: tuple[str, ...],
    weights: Path | None,
    trust: bool,
    as_json: bool,
) -> None:
    """Say whether a model builds for a device, and where its layers run.

    Nothing is compiled, and no TensorRT is needed: what it builds is written down as rules, each with its
    source. Without --jetpack all that the device runs are asked. Exit code 3 where nothing builds with the
    JetPack that is named, or the device's own one. Memory is a plain count; time is not told.
    """
    from edgekit import check
    from edgekit.cli import feeds
    from edgekit.cli.progress import Progress

    device = args.target(name)
    with Progress() as progress:
        answer = check.check(
            model,
            target=device,
            jetpack=jetpack,
            backend=backend,
            shapes=feeds.shapes(shapes) or None,
            weights=weights,
            trust=trust,
            on_event=progress,
        )
    if as_json:
        output.document("check", {"builds": answer.builds, "check": answer})
    else:
        _show(answer)
    if not answer.builds:
        raise click.exceptions.Exit(_REFUSED)


def _show(answer: Check) -> None:
    output.say(f"{answer.model} for {answer.title}: {'builds' if answer.builds else 'does not build'}")
    rows: output.Rows = [("JetPack", "backend", "verdict", "layers", "why")]
    for one in answer.software:
        system = f"{one.jetpack} (TensorRT {one.tensorrt})" if one.jetpack else "-"
        for build in one.builds:
            why = f"{build.reason}{': ' + build.hint if build.reason and build.hint else ''}"
            rows.append((system, build.backend, build.verdict, _places(build.places), why))
            if build.dla:
                rows.append((system, build.backend, "with DLA", _places(build.dla), _parts(build)))
    output.table(rows)
    _show_memory(answer.software[0])
    _show_findings(answer)


def _places(places: Mapping[str, int] | None) -> str:
    return ", ".join(f"{count} {where}" for where, count in sorted((places or {}).items())) or "-"


def _parts(build: Build) -> str:
    reasons = ", ".join(f"{rule} ({count})" for rule, count in (build.dla_left or {}).items())
    return f"{build.dla_parts} part{'s' if build.dla_parts != 1 else ''}; kept off by {reasons or 'nothing'}"


def _show_memory(software: Software) -> None:
    memory = software.memory
    output.say(
        f"memory: {output.size(memory.weights_bytes)} of weights and {output.size(memory.activations_bytes)} "
        f"between layers, {'of' if memory.fits else 'more than'} {output.size(memory.available_bytes)} "
        "(a plain count; no estimate of workspace or time)"
    )


def _show_findings(answer: Check) -> None:
    from edgekit import check

    found = check.by_rule(answer.software)
    for mine, title in ((False, "stays:"), (True, "rewritten by edgekit itself:")):
        chosen = {rule: pairs for (rule, own), pairs in found.items() if own == mine}
        if chosen:
            output.say(title)
        for rule, pairs in chosen.items():
            finding = pairs[0][1]
            systems = ", ".join(dict.fromkeys(software.jetpack for software, _ in pairs))
            nodes = list(dict.fromkeys(one.node for _, one in pairs if one.node))
            named = ", ".join(nodes[:_SHOWN]) + (", …" if len(nodes) > _SHOWN else "")
            output.say(f"  {rule} [{finding.severity}]: {finding.reason}")
            output.say(f"    JetPack {systems}{'; nodes ' + named if named else ''}")
            if finding.rewrite:
                how = f" (pass {finding.rewrite_pass})" if finding.rewrite_pass else ""
                output.say(f"    instead: {finding.rewrite}{how}")
            output.say(f"    source: {finding.source}")
