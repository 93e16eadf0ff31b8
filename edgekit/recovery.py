"""How a network is trained to recover from its compression, and what came of it, as plain values.

The training itself is in :mod:`edgekit.torch.distil`, its place in the flow in :mod:`edgekit.distillation`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from edgekit.errors import UsageError

__all__ = [
    "KINDS",
    "TASK_LOSSES",
    "Augmentation",
    "Kind",
    "Progress",
    "QuantizationRecipe",
    "Recipe",
    "Recovery",
]

Kind = Literal["logits", "probabilities", "image", "field", "values"]
"""What an output is: it decides how two of them are compared."""

KINDS: tuple[Kind, ...] = get_args(Kind)

TASK_LOSSES = ("cross_entropy", "dice_cross_entropy", "l1", "mse")
"""Losses of an output against its label: logits against classes, or values against values."""


@dataclass(frozen=True)
class Augmentation:
    """How samples are varied.

    Attributes:
        crop: Side of a random crop in voxels, or the nearest that the contract allows; 0 for 128 in 2-D and
            64 in 3-D. An input of fixed lengths is not cropped.
        flips: Whether spatial axes are reversed at random, in all inputs alike.
        intensity: Largest relative change of contrast, and of brightness in standard deviations. Values with
            a unit (Hounsfield, labels, displacements) are left as they are.
    """

    crop: int = 0
    flips: bool = True
    intensity: float = 0.1


@dataclass(frozen=True)
class Recipe:
    """How a student is trained.

    Attributes:
        learning_rate: Adam's peak rate; it rises for the first 3 % of the budget and falls with a cosine.
            After two evaluations without a better one the training goes back to the best weights with a third
            of it.
        batch: Samples a step.
        feature_weight: Weight of the features beside the outputs.
        task_weight: Weight of the task's loss, where there is one.
        features: Paths of the modules whose outputs are compared; ``None`` picks some, ``()`` compares none.
        held_out: Share of the samples to judge by.
        evaluations: How often the held-out samples are asked, and a checkpoint is written.
        patience: After how many evaluations without a better one the training ends.
        averaging: Decay of the moving average of the weights, which is what is judged and kept.
        batch_norm: ``frozen`` statistics, or ones ``estimated`` anew before the training where that helps.
        augmentation: How samples are varied.
    """

    learning_rate: float = 3e-4
    batch: int = 4
    feature_weight: float = 0.5
    task_weight: float = 1.0
    features: tuple[str, ...] | None = None
    held_out: float = 0.25
    evaluations: int = 20
    patience: int = 8
    averaging: float = 0.98
    batch_norm: Literal["frozen", "estimated"] = "frozen"
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        for name, value, fits in (
            ("learning_rate", self.learning_rate, self.learning_rate > 0),
            ("batch", self.batch, self.batch >= 1),
            ("feature_weight", self.feature_weight, self.feature_weight >= 0),
            ("task_weight", self.task_weight, self.task_weight >= 0),
            ("held_out", self.held_out, 0 < self.held_out < 1),
            ("evaluations", self.evaluations, self.evaluations >= 1),
            ("patience", self.patience, self.patience >= 1),
            ("averaging", self.averaging, 0 <= self.averaging < 1),
            ("crop", self.augmentation.crop, self.augmentation.crop >= 0),
            ("intensity", self.augmentation.intensity, 0 <= self.augmentation.intensity < 1),
        ):
            if not fits:
                raise UsageError(f"{name} is out of range: got {value:g}", where="recipe")


@dataclass(frozen=True)
class QuantizationRecipe:
    """What is rounded and how.

    Attributes:
        weight_bits: 8, or 7 for processors whose 8-bit products saturate: then no two neighbouring weights
            of one sign sum up to more than one weight of 8 bits can be.
        activation: ``uint8-where-non-negative`` has twice the resolution behind a ReLU.
        ranges: ``calibrated`` from what is observed, or ``learned`` from there.
        method: How a range is calibrated: ``minmax``, or the one of the smallest squared error.
        keep: Paths of layers that stay float, with all that is inside them.
    """

    weight_bits: int = 8
    activation: Literal["int8", "uint8-where-non-negative"] = "uint8-where-non-negative"
    ranges: Literal["calibrated", "learned"] = "calibrated"
    method: Literal["mse", "minmax"] = "mse"
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.weight_bits not in (7, 8):
            raise UsageError(f"weights have 7 or 8 bits, got {self.weight_bits}", where="recipe")


@dataclass(frozen=True)
class Progress:
    """Where a recovery stands.

    Attributes:
        share: Of the budget, 0 … 1.
        step: Steps done.
        loss: Of the last step; NaN before the first.
        held_out: Loss on the held-out samples, as of the last evaluation.
        best: The smallest of them.
    """

    share: float
    step: int
    loss: float
    held_out: float
    best: float


@dataclass(frozen=True)
class Recovery:
    """What a recovery came to.

    Attributes:
        before: Loss on the held-out samples with the weights that the student came with.
        after: With those it has now; never larger.
        held_out: That loss at each evaluation.
        steps: Steps done.
        seconds: Time they took, evaluations included.
        ended: ``"budget"``, or ``"early"`` where nothing became better any more.
        kinds: The kind of each output that was compared.
        features: Paths of the modules whose outputs were compared.
        magnitudes: With quantization, the largest value that is not clipped, by the layer that reads it.
        notes: What a user wants to know.
    """

    before: float
    after: float
    held_out: tuple[float, ...]
    steps: int
    seconds: float
    ended: Literal["budget", "early"]
    kinds: dict[str, str]
    features: tuple[str, ...]
    magnitudes: dict[str, float]
    notes: tuple[str, ...]
