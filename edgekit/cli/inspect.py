"""``edgekit inspect``: a bundle's manifest, without running anything of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli import args, output

if TYPE_CHECKING:
    from edgekit.bundle import Manifest


@args.command("inspect")
@args.bundle_argument
def command(bundle: Path, as_json: bool) -> None:
    """Show what a bundle says about itself.

    Reads the manifest alone: nothing of the bundle is executed, and no vendor's library is loaded. `edgekit
    verify` checks the content.
    """
    from edgekit.bundle import read_manifest

    manifest = read_manifest(bundle)
    if as_json:
        output.document(
            "inspect", {"bundle": str(bundle), "identity": manifest.identity, "manifest": manifest}
        )
        return
    _show(manifest)


def _show(manifest: Manifest) -> None:
    network = manifest.network
    output.say(f"{manifest.name}: for {manifest.target}, with {network.backend} ({network.form})")
    if manifest.intended_use:
        output.say(f"intended use: {manifest.intended_use}")
    built_with = ", ".join(f"{name} {version}" for name, version in network.built_with.items())
    output.say(f"written by edgekit {manifest.edgekit}{' with ' + built_with if built_with else ''}")
    output.say(f"identity: {manifest.identity}")
    for title, lines in (
        ("inputs", manifest.inputs),
        ("results", manifest.results),
        ("steps before the network", manifest.before),
        ("steps after the network", manifest.after),
        ("history", manifest.history),
        ("notes", manifest.notes),
        ("files", [f"{name}  {output.size(m.size_bytes)}" for name, m in manifest.members.items()]),
    ):
        if lines:
            output.say(f"{title}:")
            for line in lines:
                output.say(f"  {line}")
    if network.native:
        output.say(f"holds machine code for {manifest.arch} with {', '.join(manifest.cpu_features)}")
    show_evidence(manifest)


def show_evidence(manifest: Manifest) -> None:
    """Print how near the results are to the reference's, and how the candidates compared."""
    if manifest.accuracy:
        output.say(f"accuracy against {manifest.accuracy.reference}, on inputs {manifest.accuracy.inputs}:")
        rows: output.Rows = [("output", "max abs error", "max rel error", "SNR", "cosine", "")]
        rows += [
            (
                tensor.name,
                f"{tensor.max_abs_error:.3g}",
                f"{tensor.max_rel_error:.3g}",
                output.decibels(tensor.snr_db),
                f"{tensor.cosine:.9g}",
                "" if tensor.informative else "constant: proves nothing",
            )
            for tensor in manifest.accuracy.tensors
        ]
        output.table(rows, indent="  ")
    if manifest.candidates:
        output.say("candidates, measured side by side:")
        rows = [("backend", "p50", "p90", "runs", "worst SNR", "compiled in", "size", "verdict")]
        rows += [
            (
                item.backend,
                output.seconds(item.p50_s),
                output.seconds(item.p90_s),
                str(item.runs or "-"),
                output.decibels(item.worst_snr_db),
                output.seconds(item.compile_s),
                output.size(item.artifact_bytes) if item.artifact_bytes else "-",
                f"{item.verdict}: {item.reason}" if item.reason else item.verdict,
            )
            for item in manifest.candidates
        ]
        output.table(rows, indent="  ")
