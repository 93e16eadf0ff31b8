"""The networks that bench_pruning.py compares: pruned by edgekit and by Torch-Pruning, both recovered.

Every step's result stays in a folder, and a later call goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import bench_compression as compression
import numpy as np
from bench_compression import TASKS, Subject

from edgekit import atomic, distillation, isolation, slimming
from edgekit import target as targets
from edgekit.errors import EdgekitError, ModelError
from edgekit.graph.load import load
from edgekit.passes import default_passes
from edgekit.passes.base import run_all
from edgekit.recovery import Recipe
from edgekit.zoo import MODELS
from edgekit.zoo import cases as zoo_cases

# What is learned where labels are given: the output's label, and the loss.
LABELS = {
    "segment2d": ("logits", "dice_cross_entropy"),
    "segment3d": ("logits", "dice_cross_entropy"),
    "classify2d": ("logits", "cross_entropy"),
    "denoise2d": ("denoised", "l1"),
    "register3d": ("flow_vox", "mse"),
}
# Of both recoveries. Judging costs as much as learning where samples are volumes.
RECIPE = Recipe(learning_rate=1e-3, held_out=0.15, evaluations=6)
PEER_FILE = "torch-pruning.onnx"


@dataclass(frozen=True)
class Place:
    """Where a network's data and the steps' results lie.

    Attributes:
        name: In the zoo.
        folder: The network's own.
    """

    name: str
    folder: Path

    @property
    def images(self) -> tuple[str, ...]:
        """Calibration images, as ``--calibrate`` takes them."""
        found = (f"{key}={self.folder / 'scans' / f'*-{key}.npy'}" for key in MODELS[self.name].inputs)
        return tuple(found)

    @property
    def labels(self) -> dict[str, distillation.Labels]:
        """Of the same images."""
        output, loss = LABELS[self.name]
        if self.name == "classify2d":
            raise SystemExit("classify2d: classes stand in a list and not in files; leave --labels out")
        return {output: distillation.Labels(str(self.folder / "scans" / f"*-{output}.npy"), loss)}

    @property
    def shapes(self) -> dict[str, str]:
        """Of each input, as ``--shape`` takes it."""
        return {key: f"1x1x{TASKS[self.name][1]}" for key in MODELS[self.name].inputs}

    def facts(self, **more: Any) -> dict[str, Any]:
        """What is known of the steps so far, with what was just learned."""
        file = self.folder / "facts.json"
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        if more:
            found |= more
            atomic.write(file, json.dumps(found, indent=1).encode(), force=True)
        return found


def draw(place: Place, options: argparse.Namespace) -> Subject:
    """Calibration images and labelled cases; those that are there already are left as they are."""
    name, model = place.name, MODELS[place.name]
    shape = tuple(map(int, TASKS[name][1].split("x")))
    seeds = (
        ("scans", options.samples, compression.CALIBRATION_SEED),
        ("cases", options.cases, compression.CASES_SEED),
    )
    for part, count, seed in seeds:
        if not (place.folder / part / "cases.csv").exists():
            drawn = zoo_cases.generate(name, count, seed, shape=shape)
            zoo_cases.write(drawn, place.folder / part, force=True)
    loaded = load(model.factory, shapes=place.shapes, weights=model.weights)
    graph = run_all(default_passes(options.device), loaded.graph, options.device).graph
    samples = list(_samples(place, options.quantization_samples))
    calibration = tuple(
        f"{key}={file}"
        for key in model.inputs
        for file in sorted((place.folder / "scans").glob(f"*-{key}.npy"))[: options.quantization_samples]
    )
    cases = place.folder / "cases" / "cases.csv"
    return Subject(name, graph, loaded.graph, calibration, samples, cases, place.shapes)


def _samples(place: Place, count: int) -> Iterator[dict[str, Any]]:
    keys = list(MODELS[place.name].inputs)
    for file in sorted((place.folder / "scans").glob(f"*-{keys[0]}.npy"))[:count]:
        stem = file.name.removesuffix(f"-{keys[0]}.npy")
        yield {key: np.load(file.with_name(f"{stem}-{key}.npy"))[None, None] for key in keys}


def prune(place: Place, options: argparse.Namespace) -> Path:
    """The recovered weights, made where they are missing."""
    model, cut, recovered = (
        MODELS[place.name],
        place.folder / "pruned.safetensors",
        place.folder / "recovered.safetensors",
    )
    common: dict[str, Any] = {"shapes": place.shapes, "on_event": told(f"{place.name} pruned")}
    if not cut.exists():
        made = slimming.prune(
            model.factory,
            place.images,
            target=options.device,
            backend=options.backends[0] if len(options.backends) == 1 else "auto",
            speedup=options.speedup,
            weights=model.weights,
            threads=1,
            limit=8,
            output=cut,
            **common,
        )
        sizes = made.chosen.sizes
        place.facts(
            share=made.chosen.share,
            speedup=made.chosen.speedup,
            parameters=sizes.parameters[1] / sizes.parameters[0],
        )
    if not recovered.exists():
        found = distillation.distil(
            model.factory,
            weights=cut,
            teacher_weights=model.weights,
            calibrate=place.images,
            labels=place.labels if options.labels else None,
            steps=options.steps,
            recipe=RECIPE,
            output=recovered,
            force=True,
            **common,
        ).recovery
        place.facts(
            steps=found.steps,
            labels=options.labels,
            before=found.before,
            after=found.after,
            recovery_s=found.seconds,
        )
    return recovered


def peer_network(place: Place, options: argparse.Namespace) -> bytes | None:
    """The ONNX file of what Torch-Pruning and the recovery make, made where it is missing; or nothing."""
    file = place.folder / PEER_FILE
    known = place.facts()
    if not file.exists() and "peer_failure" not in known:
        story = {
            "name": place.name,
            "folder": str(place.folder.absolute()),
            "share": known["share"],
            "steps": options.steps,
            "labels": options.labels,
        }
        try:
            outcome = isolation.run(
                "pruning_networks:peer_job",
                story,
                limits=isolation.Limits(7200.0, 16 << 30),
                what=f"Torch-Pruning of {place.name}",
                error=ModelError,
            )
        except EdgekitError as error:
            place.facts(peer_failure=error.message.splitlines()[0])
            return None
        place.facts(**outcome.value)
        if PEER_FILE in outcome.files:
            atomic.write(file, outcome.files[PEER_FILE], force=True)
    return file.read_bytes() if file.exists() else None


def peer_job(request: isolation.Request) -> tuple[dict[str, Any], dict[str, Any]]:
    """In a child: cut with the library, recover, export."""
    import pruning_peers
    import torch

    from edgekit.torch import distil
    from edgekit.torch.calls import input_specs
    from edgekit.torch.source import call_factory, load_weights

    task, model = request.arguments, MODELS[request.arguments["name"]]
    place = Place(task["name"], Path(task["folder"]))
    teacher = call_factory(model.factory)
    load_weights(teacher, model.weights)
    given = [{key: torch.as_tensor(value) for key, value in sample.items()} for sample in _samples(place, 8)]
    try:
        made = pruning_peers.cut(teacher, given, task["share"])
    except pruning_peers.Failure as failure:
        return {"peer_failure": str(failure)}, {}
    labels = place.labels if task["labels"] else {}
    found = distil.recover(
        made.module,
        teacher,
        _Labelled(place, labels),
        steps=task["steps"],
        recipe=replace(RECIPE, features=()),
        specs=input_specs(teacher, place.shapes, {}, model.factory),
        losses={output: (f"label of {output}", one.loss) for output, one in labels.items()},
    )
    sample = {key: value.numpy() for key, value in given[0].items()}
    graph = load(made.module, shapes=place.shapes, samples=sample).graph
    graph = run_all(default_passes(targets.find("cpu")), graph, targets.find("cpu")).graph
    (request.out / PEER_FILE).write_bytes(graph.to_bytes())
    return {
        "peer_share": made.share,
        "peer_detail": made.detail,
        "peer_before": found.before,
        "peer_after": found.after,
        "peer_steps": found.steps,
        "peer_recovery_s": found.seconds,
    }, {}


class _Labelled:
    """All calibration samples, with the labels beside them; read anew on every pass."""

    def __init__(self, place: Place, labels: Mapping[str, distillation.Labels]) -> None:
        self._place, self._outputs = place, list(labels)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        key = next(iter(MODELS[self._place.name].inputs))
        files = sorted((self._place.folder / "scans").glob(f"*-{key}.npy"))
        for file, sample in zip(files, _samples(self._place, len(files)), strict=True):
            for output in self._outputs:
                label = np.load(file.with_name(file.name.replace(f"-{key}.npy", f"-{output}.npy")))
                spatial = next(iter(sample.values())).ndim - 2
                sample[f"label of {output}"] = label.reshape(1, -1, *label.shape[-spatial:]).astype(
                    np.float32
                )
            yield sample


def told(label: str) -> Any:
    """Prints events to stderr."""
    return lambda event: print(f"  {label}: {event}", file=sys.stderr, flush=True)
