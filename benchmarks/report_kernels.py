"""Tables and a picture of what bench_kernels.py wrote: one case an operator in the README, all in speed.md.

    python benchmarks/report_kernels.py FILE             # prints the Markdown
    python benchmarks/report_kernels.py FILE --update    # writes it into both, with picture and figures

The figures that are shown are kept in benchmarks/results/kernels.json, without single samples.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README, PAGE, PICTURE = ROOT / "README.md", ROOT / "docs" / "speed.md", ROOT / "docs" / "kernels.png"
SUMMARY = Path(__file__).resolve().parent / "results" / "kernels.json"
BEGIN, END = "<!-- figures of the kernels: benchmarks/report_kernels.py -->", "<!-- end -->"

Report = dict[str, Any]

NOTES = """\
*edgekit*: CPU time with one thread, the least of many turns. Peers: how many times that they take, likewise.
*torch layer* is the spatial transformer as VoxelMorph has it, *torch operator* the one inside it, its grid
ready in memory. *Of bound*: the time to move inputs and results once at the speed of the copy, over that of
edgekit. *2 threads*: against one, by wall time. \\* defined differently, mostly outside the grid or in the
kind of cubic interpolation; `bench_kernels.py` says how."""

COLUMNS = ("torch layer", "torch operator", "numba fused loop")
SHORT = {
    "numba fused loop": "Numba",
    "numpy gradient + det": "NumPy",
    "scipy ndimage": "SciPy",
    "MONAI Warp, DVF2DDF": "MONAI",
    "ONNX Runtime GridSample": "ONNX Runtime",
    "OpenVINO GridSample": "OpenVINO",
    "DIPY vector_fields": "DIPY",
    "cv2.remap": "OpenCV",
}


def summary(report: Report) -> Report:
    """The report without single samples, and agreements once: results do not depend on the threads."""

    def bare(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: bare(each) for name, each in value.items() if name != "samples"}
        if isinstance(value, list):
            return [bare(each) for each in value]
        return float(f"{value:.3g}") if isinstance(value, float) else value

    short = bare(report)
    for result in short["results"]:
        if result["threads"] > 1:
            del result["agreement"]
    return short


def written(report: Report) -> str:
    """The report as JSON, a line for each result."""
    parts = []
    for name, value in report.items():
        if isinstance(value, list):
            rows = ",\n".join(json.dumps(each, ensure_ascii=False, separators=(",", ":")) for each in value)
            parts.append(f'"{name}": [\n{rows}\n]')
        else:
            parts.append(f'"{name}": {json.dumps(value, ensure_ascii=False)}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def peers_of(result: Report) -> dict[str, float]:
    """How many times the CPU time of edgekit each peer takes."""
    base = result["runs"]["edgekit"]["least_cpu_s"]
    return {name: result["runs"][name]["least_cpu_s"] / base for name in result["agreement"]}


def times(result: Report, name: str, ratio: float) -> str:
    figure = f"{ratio:.0f}" if ratio >= 10 else f"{ratio:.1f}"
    return f"{figure}×" + ("\\*" if result["agreement"][name]["differs"] else "")


def title(result: Report) -> str:
    return f"{result['kernel']}, {re.sub(r'(?<=[0-9])x(?=[0-9])', '×', result['case'])}"


def measured_on(report: Report) -> str:
    machine, isa = report["machine"], report["native"]["isa"]
    copy = report["copy_bytes_per_s"]["1"] / 1e9
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {isa}; a large copy moves {copy:.0f} GB/s; load"
        f" {machine['load']:.1f} when the run began."
    )


def headlines(report: Report) -> str:
    """What the README says: the first case of every operator."""
    single = [result for result in report["results"] if result["threads"] == 1]
    first = {result["kernel"]: result for result in reversed(single)}
    lines = [
        measured_on(report),
        "",
        "| operator | edgekit | 2 threads | peers, at one thread each |",
        "| --- | --- | --- | --- |",
    ]
    for result in reversed(first.values()):
        cells = [title(result), time_of(result), speedup(result, report), others(result, peers_of(result))]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def markdown(report: Report) -> str:
    """What docs/speed.md says: every case."""
    lines = [
        measured_on(report),
        "",
        "| operator | edgekit | of bound | 2 threads | torch layer | torch operator | Numba | others |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(row(result, report) for result in report["results"] if result["threads"] == 1),
        "",
        NOTES,
    ]
    if memory := report["memory"]:
        lines += ["", "| memory of a call, as multiples of its result | edgekit | torch layer |"]
        lines += ["| --- | --- | --- |", *map(memory_row, memory)]
    return "\n".join(lines)


def row(result: Report, report: Report) -> str:
    run, ratios = result["runs"]["edgekit"], peers_of(result)
    columns = [times(result, name, ratios.pop(name)) if name in ratios else "–" for name in COLUMNS]
    cells = [
        title(result),
        time_of(result),
        f"{result['bound_s'] / run['least_cpu_s']:.0%}",
        speedup(result, report),
        *columns,
        others(result, ratios),
    ]
    return f"| {' | '.join(cells)} |"


def time_of(result: Report) -> str:
    return f"{result['runs']['edgekit']['least_cpu_s'] * 1e3:.3g} ms"


def speedup(result: Report, report: Report) -> str:
    """Of two threads."""
    return next((f"{each['scaling']['speedup']:.2f}×" for each in with_two(result, report)), "–")


def others(result: Report, ratios: dict[str, float]) -> str:
    """Peers, the fastest first."""
    ordered = sorted(ratios.items(), key=lambda item: item[1])
    named = [f"{SHORT.get(name, name)} {times(result, name, ratio)}" for name, ratio in ordered]
    return ", ".join(named) or "–"


def with_two(result: Report, report: Report) -> Iterator[Report]:
    """The same case with two threads."""
    for each in report["results"]:
        if each["threads"] == 2 and all(each[key] == result[key] for key in ("kernel", "case")):
            yield each


def memory_row(memory: Report) -> str:
    extra, result = memory["extra_bytes"], memory["result_bytes"]
    layer = f"{extra['torch layer'] / result:.1f}" if "torch layer" in extra else "–"
    return f"| {title(memory)} | {extra['edgekit'] / result:.2f} | {layer} |"


def section(text: str) -> str:
    """What stands between the marks of a page."""
    return text.partition(f"{BEGIN}\n")[2].partition(f"\n{END}")[0]


def with_section(text: str, content: str) -> str:
    """The page with new content between its marks."""
    before, _, rest = text.partition(f"{BEGIN}\n")
    return f"{before}{BEGIN}\n{content}\n{END}{rest.partition(END)[2]}"


def draw(report: Report, path: Path) -> None:
    """Every ratio of one thread on a logarithmic axis, a row for each case."""
    from matplotlib.figure import Figure

    single = [result for result in report["results"] if result["threads"] == 1 and result["agreement"]]
    seen = dict.fromkeys(name for result in single for name in result["agreement"])
    names = [name for name in seen if not name.startswith("edgekit")]
    figure = Figure(figsize=(9, 1.6 + 0.28 * len(single)), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    for number, name in enumerate(names):
        points = [
            (peers_of(result)[name], -row, bool(result["agreement"][name]["differs"]))
            for row, result in enumerate(single)
            if name in result["agreement"]
        ]
        ratios, rows, differs = zip(*points, strict=True)
        colour = f"C{number % 10}"
        axes.scatter(
            ratios,
            rows,
            s=36,
            marker="osD^vP"[number % 6],
            label=SHORT.get(name, name),
            edgecolors=colour,
            facecolors=["white" if each else colour for each in differs],
            zorder=2,
        )
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}×")
    axes.set_yticks([-row for row in range(len(single))], [title(result) for result in single])
    axes.set_ylim(0.2 - len(single), 0.8)
    axes.grid(color="0.88", zorder=0)
    axes.set_xlabel("CPU time over edgekit's, one thread; hollow: another definition")
    figure.legend(loc="outside upper center", ncols=5, frameon=False)
    figure.savefig(path, dpi=130, metadata={"Software": None})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, help="what bench_kernels.py --json wrote")
    parser.add_argument("--update", action="store_true", help="write pages, picture and figures")
    options = parser.parse_args()
    report = summary(json.loads(options.file.read_text(encoding="utf-8")))
    print(markdown(report))
    if options.update:
        SUMMARY.parent.mkdir(exist_ok=True)
        SUMMARY.write_text(written(report), encoding="utf-8")
        for page, content in ((README, headlines(report)), (PAGE, markdown(report))):
            text = page.read_text(encoding="utf-8")
            page.write_text(with_section(text, content), encoding="utf-8")
        draw(report, PICTURE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
