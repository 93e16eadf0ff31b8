"""``edgekit inspect``: a bundle's manifest, without running anything of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.cli import args, output

if TYPE_CHECKING:
    from edgekit.bundle import Manifest
    from edgekit.reports import (
        AccuracyReport,
        Candidate,
        CaseResult,
        LayerReport,
        MetricReport,
        TaskReport,
    )

# Layers and cases that are shown of many.
_WORST = 3


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
    precision = "" if manifest.precision == "float32" else f", in {manifest.precision}"
    with_what = ", ".join(f"{network.name} ({network.form})" for network in manifest.networks)
    output.say(f"{manifest.name}: for {manifest.target}, with {with_what}{precision}")
    if manifest.intended_use:
        output.say(f"intended use: {manifest.intended_use}")
    versions = {
        name: version for network in manifest.networks for name, version in network.built_with.items()
    }
    built_with = ", ".join(f"{name} {version}" for name, version in versions.items())
    output.say(f"written by edgekit {manifest.edgekit}{' with ' + built_with if built_with else ''}")
    output.say(f"identity: {manifest.identity}")
    for title, lines in (
        ("inputs", manifest.inputs),
        ("results", manifest.results),
        ("steps before the network", manifest.before),
        ("steps after the network", manifest.after),
        ("history", manifest.history),
        ("notes", manifest.notes),
        ("calibrated on", _calibration(manifest)),
        ("files", [f"{name}  {output.size(m.size_bytes)}" for name, m in manifest.members.items()]),
    ):
        if lines:
            output.say(f"{title}:")
            for line in lines:
                output.say(f"  {line}")
    if any(network.native for network in manifest.networks):
        output.say(f"holds machine code for {manifest.arch} with {', '.join(manifest.cpu_features)}")
    for network in manifest.networks:
        if network.library:
            output.say(
                f"holds edgekit's operators for {network.backend} on {manifest.arch}: {network.library}"
            )
    unproven = [network.name for network in manifest.networks if not network.proven]
    if unproven:
        output.say(f"not run where it was compiled: {', '.join(unproven)}")
    show_evidence(manifest)


def _calibration(manifest: Manifest) -> list[str]:
    data = manifest.calibration
    if data is None:
        return []
    what = f"{data.samples} samples from {len(data.files)} files, digest {data.digest()}"
    return [f"{', '.join(data.sources)}: {what}", *data.notes]


def show_evidence(manifest: Manifest) -> None:
    """Print how near the results are to the reference's, what became of the task, and who took part."""
    if manifest.accuracy:
        _show_accuracy(manifest.accuracy)
    if manifest.layers:
        _show_layers(manifest.layers)
    if manifest.task:
        _show_task(manifest.task)
    if manifest.candidates:
        _show_candidates(manifest.candidates)


def _show_accuracy(report: AccuracyReport) -> None:
    output.say(f"accuracy against {report.reference}, on inputs {report.inputs}:")
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
        for tensor in report.tensors
    ]
    output.table(rows, indent="  ")


def _show_layers(layers: Sequence[LayerReport]) -> None:
    """Every layer that stayed in float32 and the least exact ones; `--json` has them all."""
    counts = Counter(layer.precision for layer in layers)
    output.say(f"layers: {', '.join(f'{count} in {name}' for name, count in counts.most_common())}")
    measured = [layer for layer in layers if not math.isnan(layer.snr_db)]
    worst = sorted(measured, key=lambda layer: layer.snr_db)[:_WORST]
    shown = [layer for layer in layers if layer in worst or layer.reason]
    rows: output.Rows = [("layer", "operator", "precision", "smallest", "largest", "saturated", "SNR", "")]
    rows += [
        (
            layer.name,
            layer.operator,
            layer.precision,
            _figure(layer.minimum),
            _figure(layer.maximum),
            "-" if math.isnan(layer.saturation) else f"{layer.saturation * 100:.3g} %",
            output.decibels(layer.snr_db),
            layer.reason,
        )
        for layer in shown
    ]
    if shown:
        output.table(rows, indent="  ")


def _show_task(task: TaskReport) -> None:
    output.say(f"task on {len(task.cases)} labelled cases of {task.source}, against {task.baseline}:")
    rows: output.Rows = [("metric", "over", "cases", "baseline", "candidate", "drop", "interval", "allowed")]
    for metric in task.metrics:
        for group in metric.groups:
            limits = metric.limits
            limit = limits.max_group_drop if group.kind == "group" else limits.max_drop
            rows.append(
                (
                    metric.metric,
                    group.title,
                    str(group.cases),
                    _figure(group.baseline, metric.unit),
                    _figure(group.candidate, metric.unit),
                    _figure(group.drop),
                    "-" if math.isnan(group.low) else f"{group.low:.3g} … {group.high:.3g}",
                    str(limit) if limit else "-",
                )
            )
    output.table(rows, indent="  ")
    rows = [("worst cases", "metric", "baseline", "candidate", "drop", "")]
    rows += [_case_row(metric, case) for metric in task.metrics for case in metric.worst(_WORST)]
    output.table(rows, indent="  ")
    for note in (note for metric in task.metrics for note in metric.notes):
        output.say(f"  note: {note}")
    for failure in task.all_failures:
        output.say(f"  failed: {failure}")


def _case_row(metric: MetricReport, case: CaseResult) -> tuple[str, ...]:
    worst = case.worst_class
    remark = f"class {worst.name}: {worst.baseline:.4g} to {worst.candidate:.4g}" if worst else ""
    figures = (_figure(value, metric.unit) for value in (case.baseline, case.candidate))
    return (case.case, metric.metric, *figures, _figure(case.drop), case.error or remark)


def _show_candidates(candidates: Sequence[Candidate]) -> None:
    timed = any(item.runs for item in candidates)
    output.say(f"candidates, {'measured side by side' if timed else 'none of them timed here'}:")
    metrics = list(dict.fromkeys(value.metric for item in candidates for value in item.values))
    rows: output.Rows = [
        (
            "backend",
            "precision",
            "p50",
            "p90",
            "runs",
            "worst SNR",
            *metrics,
            "compiled in",
            "size",
            "verdict",
        )
    ]
    for item in candidates:
        values = {value.metric: value.value for value in item.values}
        rows.append(
            (
                item.backend,
                item.precision,
                output.seconds(item.p50_s),
                output.seconds(item.p90_s),
                str(item.runs or "-"),
                output.decibels(item.worst_snr_db),
                *(_figure(values.get(metric, math.nan)) for metric in metrics),
                output.seconds(item.compile_s),
                output.size(item.artifact_bytes) if item.artifact_bytes else "-",
                f"{item.verdict}: {item.reason}" if item.reason else item.verdict,
            )
        )
    output.table(rows, indent="  ")


def _figure(value: float, unit: str = "") -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.4g} {unit}" if unit else f"{value:.4g}"
