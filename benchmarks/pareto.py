"""A plot of loss over speed in which every label can be read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

STYLES = (
    (lambda row: row["ours"] and row.get("pruned"), "D", "#009e73", "edgekit, pruned"),
    (lambda row: row["ours"], "o", "#0072b2", "edgekit"),
    (lambda row: row.get("pruned"), "^", "#cc79a7", "Torch-Pruning"),
    (lambda row: True, "s", "#d55e00", "stock quantizers"),
)
ALLOWED = 0.01


def plot(rows: Sequence[Mapping[str, Any]], threads: int, file: Path, *, title: str) -> None:
    """Relative loss of the metric over speed: what lies to the lower right is better.

    Labels stand in a column beside the plot, in the order of their points, each with a line to its point.

    Args:
        rows: With ``faster_N``, ``drop``, ``baseline``, ``ours`` and ``pruned``.
        threads: N.
        file: The .png to write.
        title: Above it.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 1.9 + 0.19 * max(len(rows), 12)), layout="constrained")
    points = {row["candidate"]: (row[f"faster_{threads}"], _loss(row)) for row in rows}
    for row in rows:
        _, marker, colour, _ = next(style for style in STYLES if style[0](row))
        axes.plot(*points[row["candidate"]], marker, color=colour, zorder=3)
    for _, marker, colour, label in STYLES:
        axes.plot([], [], marker, color=colour, label=label)
    best = front(list(points.values()))
    axes.plot(*zip(*best, strict=True), color="#999999", drawstyle="steps-pre", zorder=1, label="best of all")
    axes.axhline(100 * ALLOWED, color="#999999", linestyle=":", zorder=1)
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylim(bottom=-0.03)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.set_xlabel(f"times faster than float32, {threads} thread{'s' if threads > 1 else ''}")
    axes.set_ylabel(f"loss of {rows[0]['metric']}, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    figure.legend(fontsize=7, loc="outside lower center", ncols=len(STYLES) + 1)
    figure.canvas.draw()
    shown = axes.transData.transform(list(points.values()))
    heights = axes.transAxes.inverted().transform(shown)[:, 1]
    order = sorted(range(len(rows)), key=lambda at: (heights[at], shown[at][0]))
    for place, at in enumerate(order):
        name = rows[at]["candidate"]
        axes.annotate(
            name.replace("onnxruntime", "ORT").replace("openvino", "OV"),
            points[name],
            xytext=(1.04, (place + 0.5) / len(order)),
            textcoords="axes fraction",
            fontsize=6.5,
            verticalalignment="center",
            arrowprops={"arrowstyle": "-", "color": "#bbbbbb", "linewidth": 0.5, "relpos": (0, 0.5)},
            annotation_clip=False,
        )
    figure.savefig(file, dpi=130)
    pyplot.close(figure)


def _loss(row: Mapping[str, Any]) -> float:
    """In per cent of float32's; a gain counts as none."""
    return max(0.0, 100 * float(row["drop"]) / abs(row["baseline"]))


def front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points of which none other is as fast with less loss, the slowest first.

    Args:
        points: Speed, which is to be large, and loss, which is to be small.
    """
    kept: list[tuple[float, float]] = []
    for speed, loss in sorted(points, key=lambda point: (-point[0], point[1])):
        if not kept or loss < kept[-1][1]:
            kept.append((speed, loss))
    return kept[::-1]
