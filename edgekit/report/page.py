"""The page about the task: did the compressed model keep what it was asked to keep, and where did it not."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Iterable, Sequence

from edgekit.bundle import Manifest
from edgekit.report import plots
from edgekit.report.pictures import BASELINE, CANDIDATE, Exhibit
from edgekit.reports import (
    CaseRecord,
    CaseResult,
    ClassResult,
    GroupResult,
    LayerReport,
    MetricReport,
    TaskReport,
    Tolerance,
)

_MAX_CASES = 500
_BLUE, _ORANGE = (f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (BASELINE, CANDIDATE))
_STYLE = f"""
:root {{ --good: {_BLUE}; --bad: {_ORANGE}; --ink: #222; --quiet: #666; --faint: #999 }}
body {{ font: 15px/1.45 system-ui, sans-serif; color: var(--ink) }}
body {{ max-width: 72rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.5rem; margin-bottom: .2rem }}
h2 {{ font-size: 1.2rem; margin-top: 2.2rem }}
h3 {{ font-size: 1rem }}
ul {{ padding-left: 1.2rem }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: middle }}
th {{ border-bottom: 1px solid var(--faint); font-weight: 600 }}
td.n, th.n {{ text-align: right; white-space: nowrap }}
tbody tr:nth-child(even) {{ background: #f5f5f5 }}
tr.fails td {{ font-weight: 600 }}
tr.fails td:first-child::before {{ content: "✗ "; color: var(--bad) }}
.quiet {{ color: var(--quiet) }}
.scroll {{ overflow-x: auto }}
.verdict {{ padding: .3rem .8rem; border-radius: .3rem; color: #fff; font-weight: 600 }}
.passed {{ background: var(--good) }}
.failed {{ background: var(--bad) }}
.zero, .between {{ stroke: var(--faint) }}
.bar, .limit, .ring {{ stroke: var(--ink) }}
.bar, .between, .ring {{ stroke-width: 1.5 }}
.limit {{ stroke-dasharray: 3 3 }}
.good {{ fill: var(--good) }}
.bad {{ fill: var(--bad) }}
.ring {{ fill: #fff }}
figure {{ display: inline-block; margin: 0 .8rem .8rem 0; vertical-align: top; width: 16.5rem }}
figure img {{ display: block; max-width: 100%; max-height: 20rem; image-rendering: pixelated }}
figcaption {{ font-size: .85rem }}
@media print {{
  body {{ max-width: none; margin: 0 }}
  tr, figure {{ break-inside: avoid }}
  * {{ print-color-adjust: exact }}
}}
"""
_SHAPE = "A ring is the baseline, a dot the candidate; a diamond is a candidate beyond its limit."


def task_page(manifest: Manifest, exhibits: Sequence[Exhibit] = ()) -> str:
    """The page of a bundle, or of a candidate that did not become one.

    Args:
        manifest: With a report on the task.
        exhibits: Cases to look at.

    Returns:
        HTML: it loads nothing, runs nothing, and prints.
    """
    task = manifest.task
    parts = [f"<h1>{_text(manifest.name)}</h1>", _subtitle(manifest)]
    if task is not None:
        parts += [_verdict(task), _figures(task)]
        parts += [_metric(metric, task.cases) for metric in task.metrics]
        parts.append(_exhibits(exhibits))
    parts += [_layers(manifest.layers), _data(manifest)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(manifest.name)}: the task</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{chr(10).join(part for part in parts if part)}\n</body></html>\n"
    )


def _subtitle(manifest: Manifest) -> str:
    line = (
        f"{manifest.precision} for {manifest.target}, with {manifest.network.backend} · "
        f"edgekit {manifest.edgekit} · identity {manifest.identity[:16]}"
    )
    return f'<p class="quiet">{_text(line)}</p>'


def _verdict(task: TaskReport) -> str:
    """One word, then every sentence that says why."""
    if task.passed:
        return '<p><span class="verdict passed">✓ passed: every demand was met</span></p>'
    reasons = task.all_failures or ("nothing was measured",)
    return f'<p><span class="verdict failed">✗ failed</span></p>{_list(reasons)}'


def _figures(task: TaskReport) -> str:
    """The few figures that matter most."""
    rows = [
        (
            _text(metric.metric),
            _number(metric.overall.baseline, metric.unit),
            _number(metric.overall.candidate, metric.unit),
            _number(metric.overall.drop, metric.unit),
        )
        for metric in task.metrics
    ]
    table = _table(("over all cases", "baseline", "candidate", "drop"), rows, numbers={1, 2, 3})
    budget = []
    if not math.isnan(task.latency_s):
        limit = f", allowed {task.max_latency_s * 1e3:.4g} ms" if task.max_latency_s is not None else ""
        budget.append(f"median latency {task.latency_s * 1e3:.4g} ms{limit}")
    if task.size_bytes:
        limit = f", allowed {task.max_size_bytes / 2**20:.4g} MiB" if task.max_size_bytes is not None else ""
        budget.append(f"artifact {task.size_bytes / 2**20:.4g} MiB{limit}")
    return table + (f"<p>{_text(' · '.join(budget))}</p>" if budget else "")


def _metric(metric: MetricReport, records: Sequence[CaseRecord]) -> str:
    title = f"<h2>{_text(metric.metric)} of {_text(metric.result)}</h2>"
    direction = f"{metric.better} is better{f', in {metric.unit}' if metric.unit else ''}"
    compared = {"labels": "against the cases' references", "baseline": "against the baseline's own results"}
    text = f"{direction}; measured {compared.get(metric.reference, 'without a reference')}"
    notes = _list(metric.notes, quiet=True)
    return f'{title}<p class="quiet">{_text(text)}</p>{_groups(metric)}{_cases(metric, records)}{notes}'


def _groups(metric: MetricReport) -> str:
    """All cases, classes and groups, with the interval of the drop beside the limit."""
    limits = metric.limits
    scale = plots.Scale.of(
        value
        for group in metric.groups
        for value in (group.drop, group.low, group.high, _limit_of(metric, group) or 0.0)
    )
    rows, failed = [], []
    for group in metric.groups:
        limit = _limit_of(metric, group)
        fails = (limit is not None and not group.drop <= limit + 1e-9) or _reaches_margin(metric, group)
        failed.append(fails)
        rows.append(
            (
                _text(group.title),
                str(group.cases),
                _number(group.baseline),
                _number(group.candidate),
                _number(group.drop),
                _range(group),
                "–" if limit is None else f"{limit:.3g}",
                plots.interval(scale, group.drop, group.low, group.high, limit, failed=fails),
            )
        )
    heading = (
        *("", "cases", "baseline", "candidate", "drop"),
        *(f"{limits.confidence * 100:g} % interval", "allowed", "drop, with its interval and limit"),
    )
    return _table(heading, rows, numbers={1, 2, 3, 4, 5, 6}, failed=failed)


def _limit_of(metric: MetricReport, group: GroupResult) -> float | None:
    """The drop that is allowed here."""
    limits = metric.limits
    tolerance = limits.max_group_drop if group.kind == "group" else limits.max_drop
    return None if tolerance is None or math.isnan(group.baseline) else tolerance.allowed(group.baseline)


def _reaches_margin(metric: MetricReport, group: GroupResult) -> bool:
    margin = metric.limits.margin
    is_judged = group.kind == "all" or (group.kind == "class" and group.cases >= metric.limits.min_cases)
    return margin is not None and is_judged and not group.high < margin.allowed(group.baseline)


def _cases(metric: MetricReport, records: Sequence[CaseRecord]) -> str:
    """Every case, the worst first."""
    ordered = metric.worst(_MAX_CASES)
    if all(math.isnan(c.baseline) and not c.error for c in ordered):
        return '<p class="quiet">It has a value for many cases together, none for one.</p>'
    groups_of = {record.name: ", ".join(record.groups) for record in records}
    scale = plots.Scale.of(v for c in ordered for v in (c.baseline, c.candidate))
    if metric.unit == "dB":  # far from 0, where no value lies
        known = [v for c in ordered for v in (c.baseline, c.candidate) if math.isfinite(v)]
        scale = plots.Scale(min(known, default=0.0) - 1, max(known, default=1.0) + 1)
    has_classes = any(case.classes for case in ordered)
    rows, failed = [], []
    for case in ordered:
        failed.append(bool(case.error) or _exceeds(case, metric.limits.max_case_drop))
        rows.append(
            (
                _text(case.case),
                _text(groups_of.get(case.case, "")),
                _number(case.baseline),
                _text(case.error) if case.error else _number(case.candidate),
                _number(case.drop),
                *((_class(case.worst_class),) if has_classes else ()),
                plots.pair(scale, case.baseline, case.candidate, failed=failed[-1]),
            )
        )
    classes = ("worst class",) if has_classes else ()
    heading = ("case", "groups", "baseline", "candidate", "drop", *classes, "from baseline to candidate")
    shown = "" if len(metric.cases) <= _MAX_CASES else f" The {_MAX_CASES} worst of {len(metric.cases)}."
    return (
        f'<h3>Every case, the worst first</h3><p class="quiet">{_SHAPE}{shown}</p>'
        f"{_table(heading, rows, numbers={2, 3, 4}, failed=failed)}"
    )


def _class(worst: ClassResult | None) -> str:
    if worst is None:
        return ""
    return f"{_text(worst.name)}: {_number(worst.baseline)} → {_number(worst.candidate)}"


def _exceeds(case: CaseResult, limit: Tolerance | None) -> bool:
    if limit is None:
        return False
    parts = [(case.baseline, case.drop), *((c.baseline, c.drop) for c in case.classes)]
    return any(drop > limit.allowed(value) + 1e-9 for value, drop in parts)


def _exhibits(exhibits: Sequence[Exhibit]) -> str:
    if not exhibits:
        return ""
    parts = ["<h2>The worst cases</h2>"]
    for exhibit in exhibits:
        case = exhibit.case
        values = "failed" if case.error else f"{_number(case.baseline)} → {_number(case.candidate)}"
        worst = f"; class {_class(case.worst_class)}" if case.worst_class else ""
        parts.append(f"<h3>{_text(case.case)}: {_text(exhibit.metric)} {values}{worst}</h3>")
        parts.append(f'<p class="quiet">{_text(exhibit.text)}</p>' if exhibit.text else "")
        for panel in exhibit.panels:
            data = base64.b64encode(panel.png).decode()
            parts.append(
                f'<figure><img alt="{_text(f"{case.case}, {panel.caption}")}" '
                f'src="data:image/png;base64,{data}"><figcaption>{_text(panel.caption)}</figcaption></figure>'
            )
    return "\n".join(parts)


def _layers(layers: Sequence[LayerReport]) -> str:
    if not layers:
        return ""
    rows = [
        (
            _text(layer.name),
            _text(layer.operator),
            _text(layer.precision),
            _number(layer.minimum),
            _number(layer.maximum),
            "–" if math.isnan(layer.saturation) else f"{layer.saturation * 100:.3g} %",
            _number(layer.snr_db, "dB"),
            _text(layer.reason),
        )
        for layer in layers
    ]
    heading = ("layer", "operator", "precision", "smallest", "largest", "saturated", "SNR", "why not smaller")
    return f"<h2>Layers</h2>{_table(heading, rows, numbers={3, 4, 5, 6})}"


def _data(manifest: Manifest) -> str:
    """Where the evidence comes from."""
    lines = []
    if (task := manifest.task) is not None:
        lines.append(
            f"{len(task.cases)} labelled cases of {task.source}, SHA-256 {task.sha256[:16]}…; baseline: "
            f"{task.baseline}. Intervals take cases to be independent: several of one patient are not."
        )
    if (data := manifest.calibration) is not None:
        lines.append(
            f"calibrated on {data.samples} samples from {len(data.files)} files ({', '.join(data.sources)}), "
            f"digest {data.digest()[:16]}…"
        )
    return f"<h2>Data</h2>{_list(lines)}" if lines else ""


def _table(
    heading: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: set[int],
    failed: Sequence[bool] = (),
) -> str:
    """A table of cells that are HTML already; the columns ``numbers`` stand to the right."""

    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in numbers else ''}>{cell}</{tag}>" for i, cell in enumerate(row)
        )

    lines = [
        f"<tr{' class=fails' if i < len(failed) and failed[i] else ''}>{cells(row, 'td')}</tr>"
        for i, row in enumerate(rows)
    ]
    body = "\n".join(lines)
    return (
        f'<div class="scroll"><table><thead><tr>{cells([_text(h) for h in heading], "th")}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _list(lines: Sequence[str], *, quiet: bool = False) -> str:
    items = "".join(f"<li>{_text(line)}</li>" for line in lines)
    return f"<ul{' class=quiet' if quiet else ''}>{items}</ul>" if items else ""


def _number(value: float, unit: str = "") -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.4g}{' ' + _text(unit) if unit else ''}".replace("-", "−")


def _range(group: GroupResult) -> str:
    if math.isnan(group.low):
        return "–"
    return f"{group.low:.3g} … {group.high:.3g}".replace("-", "−")


def _text(text: str) -> str:
    return html.escape(text, quote=True)
