"""``edgekit run``: a bundle on images or arrays."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli import args, output

if TYPE_CHECKING:
    from edgekit.spec import Array, TensorSpec


@args.command("run")
@args.bundle_argument
@args.inputs_option("Image (.nii, .nii.gz, .dcm, .png, a folder of .dcm) or array (.npy).")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="[NAME=]FILE",
    help="Where a result goes: .npy, .nii, .nii.gz; a folder for all. Without, results are only described.",
)
@click.option(
    "--grid-of",
    metavar="NAME",
    help="Input whose grid the written images lie on; needed where the inputs' grids differ.",
)
@args.network_option
@args.threads_option
@args.force_option
def command(
    bundle: Path,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    grid_of: str | None,
    network: str,
    threads: int,
    force: bool,
    as_json: bool,
) -> None:
    """Run a bundle on images or arrays.

    An image gets the axes of length 1 that the model wants and its number type, which is said; values are
    never scaled, cropped or resampled.
    """
    from edgekit import runtime
    from edgekit.bundle import read_manifest
    from edgekit.cli import feeds, results
    from edgekit.cli.progress import Progress

    with Progress() as progress:
        # The manifest alone tells all names: everything that can be wrong is found before the work.
        manifest = read_manifest(bundle)
        places = results.places(manifest, outputs, force=force)
        progress("read the inputs")
        given = feeds.given(manifest.inputs, inputs)
        grid = results.grid(manifest, places, given.images, grid_of)
        progress(f"open {bundle}")
        with runtime.open(bundle, network=network, threads=threads) as session:
            progress("run")
            stages: dict[str, float] = {}
            started = time.perf_counter()
            arrays = session.run(given.arrays, stages=stages)
            run_s = time.perf_counter() - started
        notes = [*given.notes, *results.which(session)]
        for spec in manifest.results:
            if spec.name in places:
                progress(f"write {places[spec.name]}")
                note = results.write(arrays[spec.name], spec, places[spec.name], grid, force=force)
                notes += [note] if note else []
    for text in notes:
        output.note(f"note: {text}")
    described = [_describe(spec, arrays[spec.name], places) for spec in manifest.results]
    if as_json:
        output.document(
            "run",
            {
                "bundle": str(bundle),
                "network": session.network_name,
                "inputs": given.described,
                "results": described,
                "run_s": run_s,
                "load_s": session.load_s,
                "stages_s": stages,
                "notes": notes,
            },
        )
        return
    rows: output.Rows = [("result", "type", "shape", "smallest", "mean", "largest", "file")]
    for item in described:
        figures = (f"{item[key]:.4g}" for key in ("min", "mean", "max"))
        shape = "x".join(map(str, item["shape"])) if isinstance(item["shape"], Sequence) else ""
        rows.append((str(item["name"]), str(item["dtype"]), shape, *figures, str(item["file"] or "-")))
    output.table(rows)
    output.say(f"first run {output.seconds(run_s)}, load {output.seconds(session.load_s)}")


def _describe(spec: TensorSpec, array: Array, places: Mapping[str, Path]) -> dict[str, object]:
    values = array.astype("float64")
    return {
        "name": spec.name,
        "dtype": str(array.dtype),
        "shape": array.shape,
        "quantity": spec.quantity,
        "min": float(values.min()),
        "mean": float(values.mean()),
        "max": float(values.max()),
        "file": str(places[spec.name]) if spec.name in places else None,
    }
