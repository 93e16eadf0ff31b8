"""Recovery as a step of the flow: a factory, its compressed weights and images in, better weights out.

    edgekit.distil("my.models:lung", weights="pruned.safetensors", teacher_weights="original.safetensors",
                   calibrate=["scans/"], output="better.safetensors", minutes=5)

The training runs in a child process, as everything does that loads a model's framework. An interrupted run
leaves its state beside the file that it would have written, and can be resumed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgekit import atomic, isolation, runtime, schema, steps
from edgekit.dataset import Dataset
from edgekit.errors import ModelError, SpecError, UsageError
from edgekit.front import Front
from edgekit.graph import weights as weights_file
from edgekit.isolation import Limits, Request
from edgekit.passes.quantize import Recipe as QuantizeRecipe
from edgekit.recovery import TASK_LOSSES, Kind, Progress, QuantizationRecipe, Recipe, Recovery
from edgekit.spec import Array, Step, TensorSpec
from edgekit.target import Target

METADATA_KEY = "edgekit.distil"
"""Under this key the file of weights says in its metadata how they came about, as JSON."""

_REPORT_EVERY_S = 0.2
_SETUP_S = 900.0
_DAY_S = 86400.0
_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Labels:
    """What an output should be.

    Attributes:
        images: ``FOLDER``, ``FILE`` or ``GLOB``, in the order of the inputs' images.
        loss: A name of :data:`~edgekit.recovery.TASK_LOSSES`.
    """

    images: str
    loss: str

    def __post_init__(self) -> None:
        if self.loss not in TASK_LOSSES:
            raise UsageError(
                f"unknown loss {self.loss!r}: want one of {', '.join(TASK_LOSSES)}", where="labels"
            )


@dataclass(frozen=True)
class _Task:
    """What the child is to do."""

    model: str
    weights: str
    teacher_weights: str
    shapes: dict[str, str]
    before: tuple[Step, ...]
    calibrate: tuple[str, ...]
    labels: dict[str, Labels]
    minutes: float | None
    steps: int | None
    recipe: Recipe
    quantization: QuantizationRecipe | None
    kinds: dict[str, Kind]
    limit: int
    patches: int
    seed: int
    checkpoint: str
    resume: bool
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Distilled:
    """What :func:`distil` made.

    Attributes:
        weights: The file.
        recovery: What the training came to.
        samples: How many samples there were.
        sources: Where they came from.
        notes: What a user wants to know.
    """

    weights: str
    recovery: Recovery
    samples: int
    sources: tuple[str, ...]
    notes: tuple[str, ...] = field(default=())


def distil(
    model: str,
    *,
    weights: str | Path,
    calibrate: Sequence[str],
    output: str | Path,
    teacher_weights: str | Path | None = None,
    shapes: Mapping[str, str] | None = None,
    before: Step | str | Sequence[Step | str] = (),
    labels: Mapping[str, Labels] | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    recipe: Recipe = Recipe(),
    quantization: QuantizationRecipe | None = None,
    kinds: Mapping[str, Kind] | None = None,
    limit: int = 0,
    patches: int = 1,
    seed: int = 0,
    threads: int = 0,
    resume: bool = False,
    force: bool = False,
    memory_limit_bytes: int = 16 << 30,
    on_event: Callable[[str], None] = lambda event: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Distilled:
    """Train compressed weights to do what the original ones do, on images without labels.

    Args:
        model: ``"package.module:function"`` that returns a ``torch.nn.Module``.
        weights: ``.safetensors`` or ``.pt`` file with the weights to make better; a plan of what was pruned
            in its metadata is followed, and kept.
        calibrate: Images, as ``[NAME=]FOLDER``, ``FILE`` or ``GLOB``; see :class:`~edgekit.dataset.Dataset`.
        output: The ``.safetensors`` file to write.
        teacher_weights: Weights of the original network. Those of ``weights`` as they are, where what is to
            be recovered from is quantization alone.
        shapes: Shape of each input, as ``{"ct": "1x1x[32:128:16]x96"}``.
        before: Steps before the network, as for :func:`edgekit.compile`.
        labels: What outputs should be, by name.
        minutes: Wall-clock budget of the training.
        steps: Number of steps, instead of minutes.
        recipe: How it is trained.
        quantization: Train for INT8.
        kinds: Kind of an output, by name, where the guess would be wrong.
        limit: Most images of each input; 0 for every one.
        patches: Samples to take of an image that is larger than the contract.
        seed: Of everything that is drawn.
        threads: Threads to use; 0 for all.
        resume: Go on from the state that an interrupted run left.
        force: Replace the output, and forget such a state.
        memory_limit_bytes: For the child process.
        on_event: Called with one line at the beginning of each phase.
        on_progress: Called some times a second while it is trained.

    Raises:
        EdgekitError: See :mod:`edgekit.errors`. After a LimitError the run can be resumed.
    """
    output = Path(output)
    checkpoint = checkpoint_of(output)
    _check_model(model)
    _check_files(Path(weights), teacher_weights, quantization, labels)
    _check_budget(minutes, steps)
    front = Front.of(before)
    if front.networks:
        raise UsageError(
            f"{front.networks[0].op} would stand before the network: want steps of the runtime alone",
            where="before",
            hint="run it on the images first, and distil on what it makes of them",
        )
    if output.suffix != ".safetensors":
        raise UsageError(f"want a name that ends with .safetensors, got {output.name!r}", where=str(output))
    atomic.check_writable(output, force=force)
    _check_checkpoint(checkpoint, resume, force)
    task = _Task(
        model,
        str(Path(weights).absolute()),
        str(Path(teacher_weights or weights).absolute()),
        dict(shapes or {}),
        front.steps,
        tuple(calibrate),
        dict(labels or {}),
        minutes,
        steps,
        recipe,
        quantization,
        dict(kinds or {}),
        limit,
        patches,
        seed,
        str(checkpoint.absolute()),
        resume,
    )
    outcome = isolation.run(
        "edgekit.distillation:distil_job",
        schema.encode(task),
        limits=Limits(_SETUP_S + 60 * minutes if minutes else _DAY_S, memory_limit_bytes),
        what=f"distilling {model}",
        error=ModelError,
        environment={"OMP_NUM_THREADS": str(threads)} if threads else {},
        on_report=_listener(on_event, on_progress),
    )
    on_event(f"write {output}")
    atomic.write(output, outcome.files[_WEIGHTS], force=force)
    checkpoint.unlink(missing_ok=True)
    return replace(
        schema.decode(Distilled, outcome.value, error=ModelError, where="distilling"), weights=str(output)
    )


def checkpoint_of(output: Path) -> Path:
    """Where a run keeps its state while it trains the weights of this file."""
    return output.with_name(f"{output.name}.checkpoint")


def quantization_for(target: Target) -> QuantizationRecipe:
    """How the target's arithmetic rounds, as the quantize pass does it for this target."""
    recipe = QuantizeRecipe.for_target(target)
    return QuantizationRecipe(weight_bits=recipe.weight_bits, activation=recipe.activation)


def _check_model(model: str) -> None:
    if ":" not in model or model.endswith((".onnx", ".pt2")):
        raise UsageError(
            f"only what PyTorch can train can be distilled: want package.module:function, got {model!r}",
            where="model",
            hint="give the factory that the model was exported from",
        )


def _check_files(
    weights: Path,
    teacher_weights: str | Path | None,
    quantization: QuantizationRecipe | None,
    labels: Mapping[str, Labels] | None,
) -> None:
    weights_file.check(weights)
    if teacher_weights is not None:
        weights_file.check(Path(teacher_weights))
    elif quantization is None and not labels:
        raise UsageError(
            "student and teacher would have the same weights, and nothing to learn",
            where=f"--weights {weights}",
            hint="--teacher-weights original.safetensors, or --precision int8",
        )


def _check_budget(minutes: float | None, steps: int | None) -> None:
    if (minutes is None) == (steps is None) or (minutes or steps or 0) <= 0:
        raise UsageError(
            "want one budget, minutes or steps, larger than 0", where="--minutes", hint="--minutes 5"
        )


def _check_checkpoint(path: Path, resume: bool, force: bool) -> None:
    if resume and not path.is_file():
        raise UsageError("there is no interrupted run to resume", where=str(path), hint="leave --resume out")
    if not resume and path.exists() and not force:
        raise UsageError(
            "an interrupted run left its state here",
            where=str(path),
            hint="--resume goes on with it, --force begins anew",
        )


def _listener(
    on_event: Callable[[str], None], on_progress: Callable[[Progress], None]
) -> Callable[[Any], None]:
    def listen(value: Mapping[str, Any]) -> None:
        if "event" in value:
            on_event(value["event"])
        else:
            on_progress(schema.decode(Progress, value["progress"], error=ModelError, where="progress"))

    return listen


# --- in the child -----------------------------------------------------------------------------------------


def distil_job(request: Request) -> tuple[Any, dict[str, Array]]:
    """In the child: load both networks, open the data, train, write the weights."""
    from edgekit.torch import distil as trainer
    from edgekit.torch.calls import input_specs
    from edgekit.torch.distil_files import Loaded, save

    task = schema.decode(_Task, request.arguments, error=ModelError, where="task")
    request.report({"event": f"load {task.model}"})
    student = Loaded.of(task.model, Path(task.weights))
    teacher = Loaded.of(task.model, Path(task.teacher_weights))
    specs = input_specs(student.module, task.shapes, {}, task.model)
    request.report({"event": "read the calibration data"})
    data = _Feeds(task, specs)
    reporter = _Reporter(request.report)
    recovery = trainer.recover(
        student.module,
        teacher.module,
        data,
        minutes=task.minutes,
        steps=task.steps,
        recipe=task.recipe,
        specs=specs,
        kinds=task.kinds,
        kept=student.kept_of(teacher),
        quantization=task.quantization,
        losses={name: (_LABEL + name, one.loss) for name, one in task.labels.items()},
        checkpoint=Path(task.checkpoint),
        resume=task.resume,
        on_progress=reporter,
        seed=task.seed,
    )
    record = data.dataset.record
    story = {
        "teacher": Path(task.teacher_weights).name,
        "samples": record.samples,
        "seed": task.seed,
        "recipe": schema.encode(task.recipe),
        "quantization": task.quantization and schema.encode(task.quantization),
        "recovery": schema.encode(replace(recovery, notes=())),
    }
    save(student, request.out / _WEIGHTS, {METADATA_KEY: json.dumps(story)})
    notes = (*student.notes, *record.notes, *recovery.notes)
    return schema.encode(Distilled("", recovery, record.samples, record.sources, notes)), {}


_LABEL = "label of "


class _Feeds:
    """Samples as the network gets them: what the steps make of the images, and labels beside."""

    def __init__(self, task: _Task, specs: Sequence[TensorSpec]) -> None:
        self._steps = Front(task.before).named([spec.name for spec in specs]).steps
        _check_steps(self._steps, specs)
        labels = [_label_spec(name, one, specs[0]) for name, one in task.labels.items()]
        only = f"{specs[0].name}=" if len(specs) == 1 and labels else ""
        texts = [text if text.startswith(only) else only + text for text in task.calibrate]
        texts += [f"{_LABEL}{name}={one.images}" for name, one in task.labels.items()]
        self._inputs, self._labels = [spec.name for spec in specs], [spec.name for spec in labels]
        self.dataset = Dataset.open(
            texts, [*specs, *labels], limit=task.limit, patches=task.patches, seed=task.seed
        )

    def __iter__(self) -> Iterator[dict[str, Array]]:
        for sample in self.dataset:
            images = {name: sample.feeds[name] for name in self._inputs}
            made = runtime.run_steps(self._steps, images)
            yield {n: made[n] for n in self._inputs} | {n: sample.feeds[n] for n in self._labels}


def _check_steps(front: Sequence[Step], specs: Sequence[TensorSpec]) -> None:
    """Refuse steps that do not take the place of an input and keep its contract."""
    made = steps.infer(front, {spec.name: spec for spec in specs}, in_place=True)
    for spec in specs:
        if (made[spec.name].dtype, made[spec.name].dims) != (spec.dtype, spec.dims):
            raise SpecError(
                f"the network wants {spec}, the steps before it make {made[spec.name]}", where="before"
            )


def _label_spec(name: str, labels: Labels, image: TensorSpec) -> TensorSpec:
    """What the label of an output looks like: the first input's grid, with one channel."""
    dims = tuple(
        1 if letter == "C" else length for letter, length in zip(image.layout, image.dims, strict=True)
    )
    # As float32, since files hold classes in any type.
    is_class = labels.loss in ("cross_entropy", "dice_cross_entropy")
    return TensorSpec(_LABEL + name, "float32", dims, image.layout, "label" if is_class else "")


class _Reporter:
    """Tells the parent how far it is, some times a second."""

    def __init__(self, report: Callable[[Any], None]) -> None:
        self._report, self._last_s = report, 0.0

    def __call__(self, progress: Progress) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s >= _REPORT_EVERY_S or progress.share >= 1:
            self._last_s = now_s
            self._report({"progress": schema.encode(progress)})
