"""Recovery without labels: a compressed network learns to give what the original gives.

    report = recover(pruned, original, samples, minutes=2)

The student is trained on calibration samples to agree with its teacher in the outputs and in features on the
way (Hinton et al. 2015, Romero et al. 2015), with labels and the task's loss beside that where they are
given. With a :class:`~edgekit.recovery.QuantizationRecipe` the student computes as its INT8 graph
will, and learns weights that lose less by it.

Some of the samples are held out and never trained on. The student ends with the weights that were best on
them, which are those it came with if nothing was better. With a budget of steps and one thread, the same
arguments give the same weights, whether the run was interrupted or not.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgekit import schema
from edgekit.errors import ModelError, UsageError
from edgekit.recovery import Kind, Progress, QuantizationRecipe, Recipe, Recovery
from edgekit.spec import LAYOUTS, Array, TensorSpec
from edgekit.torch import distil_checkpoint
from edgekit.torch.calls import for_inference, input_names
from edgekit.torch.distil_losses import LABEL_LOSSES
from edgekit.torch.distil_pair import Pair, TaskLoss, Values
from edgekit.torch.distil_samples import Samples, stacked

__all__ = ["TaskLoss", "recover", "task_loss"]

_LARGEST_GRADIENT = 1.0
_WARM_UP = 0.03
_FINAL_RATE = 0.01
# Of a budget of minutes, what may go into evaluations; there are some in any case.
_JUDGING = 0.25
_FEWEST_EVALUATIONS = 4
# After so many evaluations without a better one, back to the best weights and on with smaller steps.
_BACK_AFTER = 2
_SMALLER = 1 / 3


def recover(
    student: nn.Module,
    teacher: nn.Module,
    samples: Iterable[Mapping[str, Tensor | Array]],
    *,
    minutes: float | None = None,
    steps: int | None = None,
    recipe: Recipe = Recipe(),
    specs: Sequence[TensorSpec] = (),
    kinds: Mapping[str, Kind] | None = None,
    kept: Mapping[str, Sequence[int]] | None = None,
    quantization: QuantizationRecipe | None = None,
    loss: TaskLoss | None = None,
    losses: Mapping[str, tuple[str, str]] | None = None,
    checkpoint: Path | None = None,
    resume: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    seed: int = 0,
) -> Recovery:
    """Train a student to be like its teacher.

    Args:
        student: Ends with the best weights found. It is trained as it is for inference: without dropout, and
            with the recorded statistics of its batch norms.
        teacher: Stays as it is. Takes the same inputs and gives the same outputs; may be a copy of the
            student, where what is to be recovered from is quantization.
        samples: Tensors or arrays [1, ...] by name, inputs of the network and whatever ``loss`` wants; read
            several times, the same each time.
        minutes: Wall-clock budget.
        steps: Number of steps, instead of minutes.
        recipe: How it is trained.
        specs: Contracts of the inputs: they say how far samples may be cropped and varied. Without them an
            input keeps its shape.
        kinds: Kind of an output, by name, where the guess would be wrong: ``logits``, ``probabilities``,
            ``image``, ``field``, ``values``.
        kept: By path of a layer, the teacher's channels that a pruned student still has, in its order.
        quantization: Train for INT8.
        loss: The task's own loss, where there are labels.
        losses: The same by name: for an output, its label's name in the samples and one of
            :data:`~edgekit.recovery.TASK_LOSSES`.
        checkpoint: File to keep the state in, written anew at each evaluation. It stays: a run that had ended
            and is resumed gives its result again.
        resume: Go on from that file.
        on_progress: Called after each step.
        seed: Of everything that is drawn.

    Raises:
        UsageError: Not one budget, one module as both, an unknown kind, no checkpoint to resume.
        SpecError: Too few samples, or samples that fit no contract.
        ModelError: Outputs that cannot be compared, a loss that is not finite, an unknown feature.
        CorruptError, MismatchError: A checkpoint that is damaged or of another run.
    """
    if (minutes is None) == (steps is None) or (minutes or steps or 0) <= 0:
        raise UsageError("want one budget, minutes or steps, larger than 0", where="recover")
    if student is teacher or {id(p) for p in student.parameters()} & {id(p) for p in teacher.parameters()}:
        raise UsageError(
            "student and teacher want to be two modules",
            where="recover",
            hint="teacher = copy.deepcopy(student)",
        )
    if resume and checkpoint is None:
        raise UsageError("to resume wants a checkpoint", where="recover")
    with contextlib.ExitStack() as stack:
        for module in (student, teacher):
            stack.enter_context(for_inference(module))
        task = loss or (task_loss(losses) if losses else None)
        pair = Pair(student, teacher, recipe, kept or {}, quantization, task)
        data = Samples(
            samples, specs or _own_specs(student, samples), recipe.held_out, recipe.augmentation, seed
        )
        pair.prepare(data, kinds or {})
        budget = _Budget(minutes, steps)
        return _Training(pair, data, budget, checkpoint, on_progress, seed).run(resume)


def task_loss(losses: Mapping[str, tuple[str, str]]) -> TaskLoss:
    """The sum of some outputs' losses.

    Args:
        losses: For an output, its label's name in the samples and one of
            :data:`~edgekit.recovery.TASK_LOSSES`.
    """

    def loss(outputs: Mapping[str, Tensor], sample: Mapping[str, Tensor]) -> Tensor:
        for name in losses:
            if name not in outputs:
                raise UsageError(f"{name!r} is no output: want one of {', '.join(outputs)}", where="labels")
        parts = [LABEL_LOSSES[kind](outputs[name], sample[label]) for name, (label, kind) in losses.items()]
        return torch.stack(parts).sum()

    return loss


def _own_specs(module: nn.Module, samples: Iterable[Mapping[str, Tensor | Array]]) -> list[TensorSpec]:
    """Contracts that hold a sample's own shape, of the tensors that ``forward`` takes."""
    first = {name: torch.as_tensor(value) for name, value in (next(iter(samples), None) or {}).items()}
    return [
        TensorSpec(
            name,
            str(first[name].dtype).removeprefix("torch."),
            tuple(first[name].shape),
            LAYOUTS.get(first[name].dim(), ""),
        )
        for name in input_names(module, list(first))
        if name in first
    ]


@dataclass(frozen=True)
class _Budget:
    minutes: float | None
    steps: int | None

    def share(self, step: int, elapsed_s: float) -> float:
        """How much is used up, 0 … 1 and beyond."""
        return step / self.steps if self.steps else elapsed_s / (60 * (self.minutes or 0))


class _Training:
    """One run: what changes from step to step, and its checkpoint."""

    def __init__(
        self,
        pair: Pair,
        data: Samples,
        budget: _Budget,
        checkpoint: Path | None,
        on_progress: Callable[[Progress], None],
        seed: int,
    ) -> None:
        self._pair, self._data, self._budget, self._seed = pair, data, budget, seed
        self._checkpoint, self._on_progress = checkpoint, on_progress
        self._weights = {n: p for n, p in pair.student.named_parameters() if p.requires_grad}
        self._identity = self._identify() if checkpoint is not None else ""
        scales = pair.quantization.log_scales if pair.quantization else {}
        # What is averaged and kept: the weights and the ranges that go with them.
        self._kept = {f"weight.{n}": p for n, p in self._weights.items()} | {
            f"scale.{n}": s for n, s in scales.items()
        }
        maps = {f"map.{n}": m for n, m in pair.features.maps.items()}
        self._trained = {n: t for n, t in {**self._kept, **maps}.items() if t.requires_grad}
        if not self._weights:
            raise ModelError(
                "the student has no weights that can be trained", where=type(pair.student).__qualname__
            )
        self._optimiser = torch.optim.Adam(list(self._trained.values()), betas=(0.9, 0.99))
        self._average = _copied(self._kept)
        self._best = _copied(self._kept)
        self._step, self._elapsed_s, self._waited, self._mark = 0, 0.0, 0, 0
        self._history: list[float] = []
        self._before = self._after = math.inf
        self._pace = 1.0
        self._evaluations = pair.recipe.evaluations

    def run(self, resume: bool) -> Recovery:
        """Train to the end of the budget, or until nothing becomes better.

        However it ends, the student has the best weights found.
        """
        try:
            ended = self._run(resume)
        finally:
            self._put(self._best)
            self._optimiser.zero_grad()
        return self._report(ended)

    def _run(self, resume: bool) -> Literal["budget", "early"]:
        started = time.monotonic()
        if resume:
            self._restore()
        else:
            self._begin()
        before_s = self._elapsed_s
        while (share := self._budget.share(self._step, self._elapsed_s)) < 1:
            loss = self._train_step(share)
            self._elapsed_s = before_s + time.monotonic() - started
            share = self._budget.share(self._step, self._elapsed_s)
            mark = int(min(1.0, share) * self._evaluations)
            if mark > self._mark:
                self._mark = mark
                self._evaluate()
                self._elapsed_s = before_s + time.monotonic() - started
                self._save()
            held_out = self._history[-1] if self._history else self._before
            self._on_progress(Progress(min(1.0, share), self._step, loss, held_out, self._after))
            if self._waited >= self._pair.recipe.patience:
                return "early"
        return "budget"

    def _begin(self) -> None:
        started = time.monotonic()
        self._before = self._after = self._judge()
        self._evaluations = self._affordable(time.monotonic() - started)
        if not math.isfinite(self._before):
            raise ModelError(
                f"the loss of the student as it came is {self._before:g}: want a finite one",
                where="held-out samples",
                hint="check the weights, and the kind of each output",
            )
        if self._pair.recipe.batch_norm == "estimated":
            self._estimate_batch_norm()
        self._on_progress(Progress(0.0, 0, math.nan, self._before, self._after))

    def _affordable(self, seconds: float) -> int:
        """How many evaluations there are, one of which takes this long."""
        wanted, minutes = self._pair.recipe.evaluations, self._budget.minutes
        if minutes is None:
            return wanted
        return min(wanted, max(_FEWEST_EVALUATIONS, int(_JUDGING * 60 * minutes / max(seconds, 1e-3))))

    def _estimate_batch_norm(self) -> None:
        buffers = {n: b.clone() for n, b in self._pair.student.named_buffers()}
        if not self._pair.estimate_batch_norm(self._data):
            return
        found = self._judge()
        if found < self._before:
            self._after = found
            self._pair.notes.append(f"batch statistics estimated anew: {self._before:.4g} became {found:.4g}")
            return
        for name, buffer in self._pair.student.named_buffers():
            buffer.copy_(buffers[name])
        self._pair.notes.append("the recorded batch statistics are kept: new ones were no better")

    def _train_step(self, share: float) -> float:
        recipe = self._pair.recipe
        rate = min(1.0, (share + 1e-3) / _WARM_UP) * max(_FINAL_RATE, 0.5 * (1 + math.cos(math.pi * share)))
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.learning_rate * self._pace * rate
        self._optimiser.zero_grad()
        total = 0.0
        drawn = self._data.drawn(self._step, recipe.batch)
        for batch in stacked(drawn) if self._pair.takes_batches else drawn:
            part = len(next(iter(batch.values()))) / recipe.batch
            loss = part * self._pair.loss(batch)
            total += float(loss.detach())
            if not math.isfinite(total):
                raise ModelError(
                    f"the loss became {total:g} in step {self._step + 1}: want a finite one",
                    where="recover",
                    hint=f"a smaller learning rate than {recipe.learning_rate:g}",
                )
            loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self._trained.values(), _LARGEST_GRADIENT)
        self._optimiser.step()
        self._step += 1
        decay = min(recipe.averaging, self._step / (self._step + 10))
        with torch.no_grad():
            for name, mean in self._average.items():
                mean.lerp_(self._kept[name], 1 - decay)
        return total

    # --- the held-out samples -----------------------------------------------------------------------------

    def _judge(self) -> float:
        """Mean loss of the held-out samples with the weights as they are."""
        return self._pair.judged(self._data.held)

    def _evaluate(self) -> None:
        """Judge the averaged weights, and keep them where they are the best so far."""
        trained = _copied(self._kept)
        self._put(self._average)
        quantization = self._pair.quantization
        if quantization is not None and quantization.recipe.ranges == "calibrated":
            self._pair.calibrate(self._data)
            for name in (name for name in self._kept if name.startswith("scale.")):
                for values in (self._average, trained):
                    values[name].copy_(self._kept[name])
        found = self._judge()
        if not math.isfinite(found):
            raise ModelError(f"the loss became {found:g}: want a finite one", where="held-out samples")
        self._history.append(found)
        self._waited = 0 if found < self._after else self._waited + 1
        if found < self._after:
            self._after, self._best = found, _copied(self._kept)
        if self._waited and self._waited % _BACK_AFTER == 0:
            self._go_back()
        else:
            self._put(trained)

    def _go_back(self) -> None:
        """Begin again from the best weights with smaller steps: the ones taken led away from them."""
        self._pace *= _SMALLER
        self._put(self._best)
        self._average = _copied(self._kept)
        self._optimiser.state.clear()

    def _put(self, values: Values) -> None:
        with torch.no_grad():
            for name, tensor in self._kept.items():
                tensor.copy_(values[name])

    # --- the checkpoint -----------------------------------------------------------------------------------

    def _identify(self) -> str:
        pair = self._pair
        # Not their scales: another number of threads adds up in another order.
        features = [(match.path, match.channels, match.adapted) for match in pair.features.matches]
        texts = [
            str(schema.encode(pair.recipe)),
            str(schema.encode(pair.quantization.recipe) if pair.quantization else None),
            str((self._seed, self._data.count, pair.kinds, features)),
        ]
        states = [*pair.student.state_dict().values(), *pair.teacher.state_dict().values()]
        held = [tensor for sample in self._data.held for tensor in sample.values()]
        return distil_checkpoint.identity_of(texts, [*states, *held])

    def _save(self) -> None:
        if self._checkpoint is None:
            return
        tensors = {f"now.{n}": t for n, t in {**self._kept, **self._trained}.items()}
        tensors |= {f"average.{n}": t for n, t in self._average.items()}
        tensors |= {f"best.{n}": t for n, t in self._best.items()}
        tensors |= {f"buffer.{n}": b for n, b in self._pair.student.named_buffers()}
        for name, tensor in self._trained.items():
            moments: Mapping[str, Any] = self._optimiser.state.get(tensor, {})
            tensors |= {f"adam.{name}/{key}": moment for key, moment in moments.items()}
        state = {
            "step": self._step,
            "elapsed_s": self._elapsed_s,
            "waited": self._waited,
            "mark": self._mark,
            "pace": self._pace,
            "evaluations": self._evaluations,
            "history": self._history,
            "before": self._before,
            "after": self._after,
            "notes": self._pair.notes,
        }
        distil_checkpoint.write(self._checkpoint, tensors, state, self._identity)

    def _restore(self) -> None:
        assert self._checkpoint is not None
        tensors, state = distil_checkpoint.read(self._checkpoint, self._identity)
        with torch.no_grad():
            for name, tensor in {**self._kept, **self._trained}.items():
                tensor.copy_(tensors[f"now.{name}"])
            for name, buffer in self._pair.student.named_buffers():
                buffer.copy_(tensors[f"buffer.{name}"])
        self._average = {name: tensors[f"average.{name}"] for name in self._kept}
        self._best = {name: tensors[f"best.{name}"] for name in self._kept}
        for name, tensor in self._trained.items():
            prefix = f"adam.{name}/"
            moments = {key.removeprefix(prefix): t for key, t in tensors.items() if key.startswith(prefix)}
            if moments:
                self._optimiser.state[tensor] = moments
        self._step, self._elapsed_s = state["step"], state["elapsed_s"]
        self._waited, self._mark, self._pace = state["waited"], state["mark"], state["pace"]
        self._evaluations = state["evaluations"]
        self._history, self._before, self._after = state["history"], state["before"], state["after"]
        self._pair.notes[:] = state["notes"]

    def _report(self, ended: Literal["budget", "early"]) -> Recovery:
        pair = self._pair
        if not self._after < self._before:
            pair.notes.append("nothing was better than the weights that the student came with: they are kept")
        return Recovery(
            before=self._before,
            after=self._after,
            held_out=tuple(self._history),
            steps=self._step,
            seconds=self._elapsed_s,
            ended=ended,
            kinds=dict(pair.kinds),
            features=tuple(m.path for m in pair.features.matches),
            magnitudes=pair.quantization.magnitudes() if pair.quantization else {},
            notes=tuple(pair.notes),
        )


def _copied(tensors: Mapping[str, Tensor]) -> Values:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}
