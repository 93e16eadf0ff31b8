"""Student and teacher side by side: what of them can be compared, and the loss of a batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekit.errors import ModelError, UsageError, did_you_mean
from edgekit.recovery import KINDS, Kind, QuantizationRecipe, Recipe
from edgekit.torch.calls import Flat, named_outputs
from edgekit.torch.distil_features import Features, match
from edgekit.torch.distil_losses import guess, loss_of, spread
from edgekit.torch.distil_samples import HELD_BYTES, Sample, Samples
from edgekit.torch.fake_quantize import FakeQuantization

Values = dict[str, Tensor]
TaskLoss = Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], Tensor]
"""Loss of outputs by name, given a whole sample by name, labels included; a scalar."""

# Samples that ranges, statistics and spreads are taken from.
_OBSERVED = 8


class Pair:
    """Student and teacher, and how they are compared."""

    def __init__(
        self,
        student: nn.Module,
        teacher: nn.Module,
        recipe: Recipe,
        kept: Mapping[str, Sequence[int]],
        quantization: QuantizationRecipe | None,
        task: TaskLoss | None,
    ) -> None:
        self.student, self.teacher, self.recipe, self.task = student, teacher, recipe, task
        self._kept = kept
        self.quantization = FakeQuantization(student, quantization) if quantization else None
        self.notes: list[str] = []
        self.kinds: dict[str, Kind] = {}
        self.scales: dict[str, float] = {}
        self.features = Features((), {}, ())
        self.takes_batches = False
        self._inputs: tuple[str, ...] = ()
        self._remembers = False
        self._known: dict[int, Values] = {}

    @property
    def _where(self) -> str:
        return type(self.student).__qualname__

    # --- before the training ------------------------------------------------------------------------------

    def prepare(self, data: Samples, kinds: Mapping[str, Kind]) -> None:
        """Find out what can be compared, and how far it spreads."""
        self._inputs = tuple(data.specs)
        sample = data.held[0]
        with torch.no_grad():
            theirs, mine = self._call(self.teacher, sample), self._call(self.student, sample)
        self._find_kinds(theirs, mine, sample, kinds)
        several = data.held[:_OBSERVED]
        known = [self._taught(sample)[0] for sample in several]
        self.scales = {name: spread(torch.cat([t[name].reshape(-1) for t in known])) for name in self.kinds}
        size = sum(t.numel() * t.element_size() for t in known[0].values())
        self._remembers = size * len(data.held) <= HELD_BYTES
        if self.recipe.features != ():
            with torch.no_grad():
                self.features = match(
                    self.student,
                    self.teacher,
                    lambda module: self._call(module, sample),
                    self.recipe.features,
                    self._kept,
                )
            self.notes += self.features.notes
        self.takes_batches = self._takes_batches(sample)
        self.calibrate(data)

    def calibrate(self, data: Samples) -> None:
        """Set the ranges of the activations from the weights as they are."""
        if self.quantization is None:
            return
        with torch.no_grad(), self.quantization.observed():
            for sample in data.plain(_OBSERVED):
                self._call(self.student, sample)
        self.quantization.settle()

    def estimate_batch_norm(self, data: Samples) -> bool:
        """Estimate the statistics of batch norms anew; whether there are any."""
        norms = [m for m in self.student.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        norms = [norm for norm in norms if norm.track_running_stats]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all samples
            norm.train()
        if norms:
            with torch.no_grad():
                for sample in data.plain(_OBSERVED * 4):
                    self._call(self.student, sample)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
        return bool(norms)

    def _find_kinds(self, theirs: Values, mine: Values, sample: Sample, kinds: Mapping[str, Kind]) -> None:
        _check_kinds(kinds, theirs)
        inputs = {name: sample[name] for name in self._inputs}
        for name, output in theirs.items():
            self._check_output(name, output, mine)
            if not output.is_floating_point():
                self.notes.append(f"output {name} is not compared: {output.dtype} has no gradient")
                continue
            self.kinds[name] = kinds.get(name) or guess(name, output, inputs)
            if name not in kinds:
                self.notes.append(f"output {name} is taken for {self.kinds[name]}")
        with torch.enable_grad():
            trained = self._call(self.student, sample)
        for name in [name for name in self.kinds if not trained[name].requires_grad]:
            self.notes.append(f"output {name} is not compared: no gradient comes through it")
            del self.kinds[name]
        if not self.kinds and self.task is None:
            raise ModelError(
                "no output can be compared: want one of floating point that depends on the weights smoothly",
                where=self._where,
                hint="give a factory whose module ends before the arg-max",
            )

    def _check_output(self, name: str, output: Tensor, mine: Values) -> None:
        if name not in mine or mine[name].shape != output.shape:
            got = list(mine[name].shape) if name in mine else ", ".join(mine)
            raise ModelError(
                "student and teacher want to give the same outputs: "
                f"want {name} {list(output.shape)}, got {got}",
                where=self._where,
            )
        if not bool(output.isfinite().all()):
            raise ModelError("the teacher gives NaN or infinity", where=f"output {name!r}")

    def _takes_batches(self, sample: Sample) -> bool:
        """Whether two samples at once give what each gives alone; some modules are written for one."""
        other = {n: t / 2 if t.is_floating_point() else t for n, t in sample.items()}
        both = {name: torch.cat([sample[name], other[name]]) for name in sample}
        try:
            with torch.no_grad():
                together, alone = self._call(self.teacher, both), self._call(self.teacher, sample)
        except Exception:  # noqa: BLE001 - a module may say in any way that it takes one sample only
            return False
        return all(
            together[name].shape[1:] == alone[name].shape[1:]
            and len(together[name]) == 2 * len(alone[name])
            and bool((together[name][: len(alone[name])] - alone[name]).abs().max() < 1e-2 * scale)
            for name, scale in self.scales.items()
        )

    # --- one sample ---------------------------------------------------------------------------------------

    def _call(self, module: nn.Module, sample: Sample) -> Values:
        flat = Flat(module, self._inputs)
        result = named_outputs(module, flat.call(*(sample[name] for name in self._inputs)))
        wrong = [name for name, value in result.items() if not isinstance(value, Tensor)]
        if wrong:
            raise ModelError(
                f"want tensors as outputs, got others: {', '.join(wrong)}", where=type(module).__qualname__
            )
        return result

    def _taught(self, sample: Sample) -> tuple[Values, Values]:
        """The teacher's outputs and features."""
        with torch.no_grad(), self.features.recorded(self.teacher) as features:
            return self._call(self.teacher, sample), features

    def loss(self, sample: Sample) -> Tensor:
        """The whole loss of a batch that is trained on."""
        known, their_features = self._taught(sample)
        with self._applied(), self.features.recorded(self.student) as my_features:
            found = self._call(self.student, sample)
        total = self._of_outputs(found, known, sample)
        if self.features.matches:
            total = total + self.recipe.feature_weight * self.features.loss(my_features, their_features)
        return total

    def judged(self, held: Sequence[Sample]) -> float:
        """Mean loss of the outputs alone; what the teacher gives for them is remembered if it fits."""
        total = 0.0
        with torch.no_grad():
            for index, sample in enumerate(held):
                known = self._known.get(index) or self._call(self.teacher, sample)
                if self._remembers:
                    self._known[index] = known
                with self._applied():
                    found = self._call(self.student, sample)
                total += float(self._of_outputs(found, known, sample))
        return total / len(held)

    def _applied(self) -> contextlib.AbstractContextManager[None]:
        return self.quantization.applied() if self.quantization else contextlib.nullcontext()

    def _of_outputs(self, found: Values, known: Values, sample: Sample) -> Tensor:
        total = torch.zeros(())
        for name, kind in self.kinds.items():
            total = total + loss_of(kind, found[name], known[name], self.scales[name])
        if self.task is not None:
            total = total + self.recipe.task_weight * self.task(found, sample)
        return total


def _check_kinds(kinds: Mapping[str, Kind], outputs: Values) -> None:
    for name, kind in kinds.items():
        if name not in outputs:
            near = did_you_mean(name, outputs)
            raise UsageError(
                f"{name!r} is no output: want one of {', '.join(outputs)}",
                where="kinds",
                hint=f"did you mean {near!r}?" if near else None,
            )
        if kind not in KINDS:
            raise UsageError(
                f"unknown kind {kind!r}: want one of {', '.join(KINDS)}", where=f"output {name!r}"
            )
