"""2:4 sparsity for NVIDIA's tensor cores since Ampere: two of every four weights along the input channels.

    sparse = sparsify(module)
    sparse.module                   # two weights of four are zero where that can pay
    sparse.refused                  # why other layers stay dense

TensorRT takes a convolution's weight for sparse where, at every place of the kernel and for each outgoing
channel, every four consecutive incoming channels hold at least two zeros; a linear layer's where every four
weights of a row do. Nothing is gained elsewhere: ONNX Runtime, OpenVINO and TVM compute zeros like other
numbers, wherever they are, and so scattered zeros are offered nowhere.
"""

from __future__ import annotations

import copy
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekit.errors import ModelError, UnsupportedError

_GROUP = 4
_ZEROS = 2


@dataclass(frozen=True)
class Sparse:
    """A network with 2:4 weights.

    Attributes:
        module: The network.
        masks: Where weights stay, of a weight's shape, by path of the layer.
        kept: Share of each such weight's squared magnitude that is left, by path.
        refused: Why other layers with weights stay dense, by path.
    """

    module: nn.Module
    masks: dict[str, Tensor]
    kept: dict[str, float]
    refused: dict[str, str]


def sparsify(module: nn.Module, *, keep: Sequence[str] = ()) -> Sparse:
    """A copy of a network in which two of every four weights are zero: the two smaller ones.

    Args:
        module: The network; it is left as it is.
        keep: Paths of modules to leave dense, ``*`` and ``?`` allowed.

    Raises:
        UnsupportedError: No layer can be sparse; the message says why, layer by layer.
        ModelError: A weight is not finite.
    """
    made = copy.deepcopy(module)
    masks: dict[str, Tensor] = {}
    kept: dict[str, float] = {}
    refused: dict[str, str] = {}
    for path, layer in made.named_modules():
        if not isinstance(layer, (nn.modules.conv._ConvNd, nn.Linear)):
            continue
        inside = any(fnmatch.fnmatchcase(path, p) or fnmatch.fnmatchcase(path, f"{p}.*") for p in keep)
        reason = "you keep it" if inside else why_not(layer)
        if reason:
            refused[path] = reason
            continue
        weight = layer.weight.detach()
        if not bool(weight.isfinite().all()):
            raise ModelError("the weights are not finite", where=path)
        masks[path] = mask_of(weight)
        total = float(weight.double().square().sum())
        left = float((weight * masks[path]).double().square().sum())
        kept[path] = left / total if total else 1.0
    if not masks:
        lines = [f"  {path}: {why}" for path, why in refused.items()]
        raise UnsupportedError(
            "\n".join(["no layer of this network can be 2:4 sparse:", *lines]),
            where=next(iter(refused), None),
        )
    enforce(made, masks)
    return Sparse(made, masks, kept, refused)


def why_not(layer: nn.Module) -> str:
    """Why a layer would not be faster with 2:4 weights; empty where it may be."""
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return "transposed convolutions have no sparse kernels"
    if isinstance(layer, nn.modules.conv._ConvNd):
        if layer.groups > 1:
            return f"its {layer.groups} groups do not run on tensor cores as one product"
        if layer.weight.dim() not in (4, 5):
            return "it is no convolution of images or volumes"
    elif not isinstance(layer, nn.Linear):
        return "it is no convolution and no linear layer"
    if layer.weight.shape[1] % _GROUP:
        return f"its {layer.weight.shape[1]} incoming channels are no multiple of {_GROUP}"
    return ""


def mask_of(weight: Tensor) -> Tensor:
    """Where a weight [O, I, ...] stays: at the two largest magnitudes of every four along I.

    Of equal ones the first stay.

    Args:
        weight: I is a multiple of 4.

    Returns:
        A mask of the weight's shape, bool.
    """
    groups = weight.detach().abs().movedim(1, -1)
    groups = groups.reshape(*groups.shape[:-1], -1, _GROUP)
    order = groups.argsort(dim=-1, descending=True, stable=True)
    mask = torch.zeros_like(groups, dtype=torch.bool).scatter_(-1, order[..., : _GROUP - _ZEROS], True)
    return mask.flatten(-2).movedim(-1, 1).contiguous()


def enforce(module: nn.Module, masks: Mapping[str, Tensor]) -> None:
    """Set what is masked to zero again, in place: after each step of a training."""
    with torch.no_grad():
        for path, mask in masks.items():
            weight = module.get_submodule(path).weight
            assert isinstance(weight, Tensor)
            weight.mul_(mask.to(weight))


def violations(weight: Tensor) -> int:
    """How many groups of four along axis 1 of a weight [O, I, ...] hold fewer than two zeros.

    Raises:
        ModelError: I is no multiple of 4.
    """
    if weight.dim() < 2 or weight.shape[1] % _GROUP:
        raise ModelError(f"want a multiple of {_GROUP} along axis 1, got shape {tuple(weight.shape)}")
    groups = weight.detach().movedim(1, -1)
    filled = (groups.reshape(*groups.shape[:-1], -1, _GROUP) != 0).sum(-1)
    return int((filled > _GROUP - _ZEROS).sum())
