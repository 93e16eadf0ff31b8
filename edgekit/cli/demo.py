"""``edgekit demo``: the whole job on real images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import args, output

if TYPE_CHECKING:
    from edgekit.demo import DemoReport


@args.command("demo")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-output"),
    show_default=True,
    metavar="FOLDER",
    help="Where bundles, pictures and figures go; earlier ones are replaced.",
)
def command(folder: Path, as_json: bool) -> None:
    """Do the whole job on real images that ship with dependencies.

    Compiles a registration and a denoising network for this processor, runs both on real images and compares
    the results with what is known of them. Downloads nothing.
    """
    from edgekit import demo
    from edgekit.cli.progress import Progress

    with Progress() as progress:
        report = demo.run(folder, on_event=progress)
    if as_json:
        output.document("demo", {"report": report})
        return
    _show(report)


def _show(report: DemoReport) -> None:
    registration = report.registration
    rows: output.Rows = [("registration of the MNI152 template", "before", "after")]
    rows.append(
        (
            "mean error of the field, mm",
            f"{registration.field_error_before_mm:.2f}",
            f"{registration.field_error_after_mm:.2f}",
        )
    )
    rows += [
        (f"Dice, {tissue}", f"{before:.3f}", f"{registration.dice_after[tissue]:.3f}")
        for tissue, before in registration.dice_before.items()
    ]
    rows.append(("voxels that fold", "-", f"{100 * registration.folding:.3f} %"))
    output.table(rows)
    for figures in report.denoising:
        output.say()
        rows = [(f"denoising, {figures.image} (sigma {figures.sigma:.3g})", "PSNR", "SSIM")]
        rows += [
            (method, f"{psnr:.2f} dB", f"{figures.ssim[method]:.3f}")
            for method, psnr in figures.psnr_db.items()
        ]
        output.table(rows)
    output.say()
    rows = [("bundle", "backend", "p50", "p90", "worst SNR", "verdict")]
    for bundle in report.bundles:
        for item in bundle.candidates:
            rows.append(
                (
                    Path(bundle.file).name,
                    item.backend,
                    output.seconds(item.p50_s),
                    output.seconds(item.p90_s),
                    output.decibels(item.worst_snr_db),
                    f"{item.verdict}: {item.reason}" if item.reason else item.verdict,
                )
            )
    output.table(rows)
    output.say()
    for file in report.files:
        output.say(f"wrote {file}")
