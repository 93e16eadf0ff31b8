"""How far a student's outputs are from its teacher's: one loss for each kind of output.

Every loss is about 1 where the student says nothing and 0 where it agrees, so that outputs and features can
be added. What it is measured against, the spread of the teacher's values, is fixed before the training: a
crop of empty background must not weigh more than an image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekit.recovery import Kind

__all__ = ["LABEL_LOSSES", "guess", "loss_of", "relative_error", "spread"]

_FIELD = re.compile(r"flow|displacement|velocity|field|ddf|dvf|deformation", re.IGNORECASE)
_SMALLEST = 1e-6
# The weight of an image's error in decades beside its mean absolute error; SNR counts in decades.
_DECADE = 0.1


def guess(name: str, output: Tensor, inputs: Mapping[str, Tensor]) -> Kind:
    """What kind of output this is, by its name, its shape and its values.

    Args:
        name: The output's name: displacements and logits are told from images by it.
        output: What the teacher gave, floating point, [N, ...].
        inputs: What it was given: an output like one of them is an image.

    Returns:
        ``field`` (displacements [N, d, *d axes]), ``probabilities`` (0 … 1), ``image`` (of an input's
        shape), ``logits`` ([N, K] or [N, K, ...]), or ``values`` (anything else).
    """
    spatial = output.dim() - 2
    if "logit" in name.lower() and spatial >= 0:
        return "logits"
    if spatial > 0 and output.shape[1] == spatial and _FIELD.search(name):
        return "field"
    low, high = float(output.min()), float(output.max())
    if low >= 0 and high <= 1 and spatial >= 0 and _sums_to_one(output):
        return "probabilities"
    alike = [tensor for tensor in inputs.values() if tensor.shape == output.shape]
    if alike and spatial > 0:
        inside = low >= 0 and high <= 1 and max(float(t.max() - t.min()) for t in alike) > 2
        return "probabilities" if inside else "image"
    if low >= 0 and high <= 1 and spatial > 0 and output.shape[1] == 1:
        return "probabilities"
    return "logits" if spatial in (0, 2, 3) else "values"


def _sums_to_one(output: Tensor) -> bool:
    return output.shape[1] > 1 and bool((output.sum(1) - 1).abs().max() < 1e-3)


def spread(tensor: Tensor) -> float:
    """Root mean square of the distance from the mean; a small positive number for a constant."""
    return max(float(tensor.detach().double().std(unbiased=False)), _SMALLEST)


def relative_error(student: Tensor, teacher: Tensor, scale: float) -> Tensor:
    """Mean squared difference over the square of ``scale``."""
    return (student - teacher).square().mean() / scale**2


def loss_of(kind: Kind, student: Tensor, teacher: Tensor, scale: float) -> Tensor:
    """The loss of one output.

    Args:
        kind: What it is.
        student: The student's, [N, ...].
        teacher: The teacher's, of the same shape.
        scale: :func:`spread` of the teacher's values over many samples.
    """
    return _LOSSES[kind](student, teacher, scale)


def _logits(student: Tensor, teacher: Tensor, scale: float) -> Tensor:
    """Kullback-Leibler divergence (Hinton et al. 2015, at temperature 1), and the logits themselves.

    One channel is the logit of a mask. The second term holds on to what a saturated divergence does not see.
    """
    if student.shape[1] == 1:
        inside, outside = F.logsigmoid(student), F.logsigmoid(-student)
        known_in, known_out = F.logsigmoid(teacher), F.logsigmoid(-teacher)
        divergence = known_in.exp() * (known_in - inside) + known_out.exp() * (known_out - outside)
    else:
        known = F.log_softmax(teacher, 1)
        divergence = (known.exp() * (known - F.log_softmax(student, 1))).sum(1)
    return divergence.mean() + relative_error(student, teacher, scale)


def _probabilities(student: Tensor, teacher: Tensor, scale: float) -> Tensor:
    student, teacher = student.clamp(_SMALLEST, 1), teacher.clamp(_SMALLEST, 1)
    divergence = teacher * (teacher.log() - student.log())
    if not _sums_to_one(teacher):
        outside, known_out = (1 - student).clamp(min=_SMALLEST), (1 - teacher).clamp(min=_SMALLEST)
        divergence = divergence + known_out * (known_out.log() - outside.log())
    return divergence.sum(1).mean() + relative_error(student, teacher, scale)


def _image(student: Tensor, teacher: Tensor, scale: float) -> Tensor:
    """Mean absolute error, and the error's energy in decades, both against each image's own spread."""
    axes = tuple(range(1, teacher.dim()))
    own = teacher.var(axes, unbiased=False).clamp(min=0.01 * scale**2)
    difference = student - teacher
    absolute = (difference.abs().mean(axes) / own.sqrt()).mean()
    decades = torch.log10(difference.square().mean(axes) / own + _SMALLEST).mean()
    return absolute + _DECADE * (decades - torch.log10(torch.tensor(_SMALLEST)))


def _field(student: Tensor, teacher: Tensor, scale: float) -> Tensor:
    """Squared error of the displacement and of its derivatives, which say how it stretches and folds."""
    total = relative_error(student, teacher, scale)
    axes = range(2, teacher.dim())
    for axis in axes:
        known = teacher.diff(dim=axis)
        if known.numel():
            steep = known.square().mean().clamp(min=1e-3 * scale**2)
            total = total + (student.diff(dim=axis) - known).square().mean() / steep / len(axes)
    return total


_LOSSES: Mapping[Kind, Callable[[Tensor, Tensor, float], Tensor]] = {
    "logits": _logits,
    "probabilities": _probabilities,
    "image": _image,
    "field": _field,
    "values": relative_error,
}


def _cross_entropy(output: Tensor, label: Tensor) -> Tensor:
    if output.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(output, label.reshape(output.shape).to(output.dtype))
    return F.cross_entropy(output, _classes(output, label))


def _dice_cross_entropy(output: Tensor, label: Tensor) -> Tensor:
    """1 - Dice, of every class but the background, plus the cross entropy (nnU-Net, Isensee et al. 2021)."""
    if output.shape[1] == 1:
        inside = torch.sigmoid(output)
        known = label.reshape(output.shape).to(output.dtype)
    else:
        inside = F.softmax(output, 1)[:, 1:]
        classes = _classes(output, label)
        known = torch.stack([classes == index for index in range(1, output.shape[1])], 1).to(output.dtype)
    axes = (0, *range(2, output.dim()))
    overlap = 2 * (inside * known).sum(axes) + 1
    return 1 - (overlap / (inside.sum(axes) + known.sum(axes) + 1)).mean() + _cross_entropy(output, label)


def _classes(output: Tensor, label: Tensor) -> Tensor:
    """Labels [N, 1, ...] or [N, ...] as classes [N, ...]."""
    return label.reshape(output.shape[0], *output.shape[2:]).long()


LABEL_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "dice_cross_entropy": _dice_cross_entropy,
    "l1": F.l1_loss,
    "mse": F.mse_loss,
}
"""The functions that :data:`edgekit.recovery.TASK_LOSSES` names."""
