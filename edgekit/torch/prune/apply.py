"""Cut a network to a plan: plain slicing of its tensors, and of the numbers that its layers keep of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.cuts import Kept, Kind, Layer, Plan
from edgekit.errors import ModelError

_HINT = "use the weights with the factory that they were pruned for"
_TRANSPOSED = nn.modules.conv._ConvTransposeNd
_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.PReLU)
# Axis of each side in a layer's weight. What else a layer has follows its outgoing channels.
_SIDES: dict[Kind, dict[str, int]] = {
    "convolution": {"out": 0, "into": 1},
    "transposed convolution": {"out": 1, "into": 0},
    "linear": {"out": 0, "into": 1},
    "norm": {"out": 0},
    "embedding": {"out": 1},
}
_FOLLOWING = ("bias", "running_mean", "running_var")
# What normalizations call their number of channels.
_COUNTS = ("num_channels", "num_features", "num_parameters")

# A tensor of a module, one of its axes, and what is kept of it.
Edit = tuple[nn.Module, str, int, Kept]


def kind_of(module: nn.Module) -> Kind | None:
    """What a plan calls the layer, or ``None`` where it is none of those that a plan knows."""
    if isinstance(module, _TRANSPOSED):
        return "transposed convolution"
    if isinstance(module, nn.modules.conv._ConvNd):
        return "convolution"
    if isinstance(module, nn.Linear):
        return "linear"
    if isinstance(module, nn.LayerNorm):
        return "norm" if len(module.normalized_shape) == 1 else None
    if isinstance(module, _NORMS):
        return "norm"
    return "embedding" if isinstance(module, nn.Embedding) else None


def side_of(kind: Kind, name: str, axis: int) -> str | None:
    """The side of a layer that one axis of its tensor ``name`` belongs to; ``None`` for a kernel's axes."""
    if name != "weight":
        return "out"
    return next((side for side, own in _SIDES[kind].items() if own == axis), None)


def tensors_of_layer(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The layer's own parameters and buffers that have an axis for channels, by name."""
    for name in ("weight", *_FOLLOWING):
        tensor = getattr(module, name, None)
        if isinstance(tensor, Tensor) and tensor.dim():
            yield name, tensor


def length_of(module: nn.Module, kind: Kind, side: str) -> int:
    """How many channels a layer has on a side, counted as in its weight; 0 where it has no such side."""
    if kind != "norm":
        weight: Any = module.weight
        return int(weight.shape[_SIDES[kind][side]]) if side in _SIDES[kind] else 0
    if side == "into":
        return 0
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[0]
    return next(int(getattr(module, name)) for name in _COUNTS if hasattr(module, name))


def apply(module: nn.Module, plan: Plan, *, where: str) -> None:
    """Cut a network in place.

    Args:
        module: As its factory makes it.
        plan: What it keeps.
        where: The file that the plan comes from, for messages.

    Raises:
        ModelError: The plan does not fit the network. Nothing is cut then.
    """
    planned = list(edits(module, plan, where=where))
    for path, layer in plan.layers.items():
        _check_groups(module.get_submodule(path), layer, f"{where}: {path}")
    done: dict[tuple[int, int, Kept], tuple[Tensor, Tensor]] = {}
    for part, name, axis, kept in planned:
        tensor = getattr(part, name)
        key = id(tensor), axis, kept
        if key not in done:
            made = tensor.detach().index_select(axis, torch.tensor(kept.kept, device=tensor.device))
            if isinstance(tensor, nn.Parameter):
                made = nn.Parameter(made, requires_grad=tensor.requires_grad)
            # With the tensor itself, so that its id stays its own. What modules share stays shared.
            done[key] = tensor, made
        setattr(part, name, done[key][1])
    for path, layer in plan.layers.items():
        _recount(module.get_submodule(path), layer)


def edits(module: nn.Module, plan: Plan, *, where: str) -> Iterator[Edit]:
    """Every tensor that a plan cuts, with what is kept along one axis.

    Raises:
        ModelError: The plan does not fit the network.
    """
    for path, layer in plan.layers.items():
        part = _module(module, path, where)
        if kind_of(part) != layer.kind:
            raise ModelError(
                f"the pruning plan does not fit: want a {layer.kind} at {path}, got {type(part).__name__}",
                where=where,
                hint=_HINT,
            )
        yield from _edits_of_layer(part, layer, f"{where}: {path}")
    for name, axes in plan.tensors.items():
        path, _, own = name.rpartition(".")
        part = _module(module, path, where)
        state = dict(part.named_parameters(recurse=False)) | dict(part.named_buffers(recurse=False))
        for text, kept in axes.items():
            axis = int(text) if text.isdecimal() and len(text) < 3 else -1
            lengths = state[own].shape if own in state else ()
            if not 0 <= axis < len(lengths) or lengths[axis] != kept.of:
                raise ModelError(
                    f"the pruning plan does not fit: want a tensor {name} with length {kept.of} along axis "
                    f"{text[:8]}, got {tuple(lengths) if own in state else 'none'}",
                    where=where,
                    hint=_HINT,
                )
            yield part, own, axis, kept


def _module(root: nn.Module, path: str, where: str) -> nn.Module:
    try:
        return root.get_submodule(path)
    except AttributeError:
        raise ModelError(
            f"the pruning plan does not fit: the module has no {path}", where=where, hint=_HINT
        ) from None


def _edits_of_layer(module: nn.Module, layer: Layer, where: str) -> Iterator[Edit]:
    for side, kept in (("out", layer.out), ("into", layer.into)):
        if kept is None:
            continue
        if kept.of != (length := length_of(module, layer.kind, side)):
            raise ModelError(
                f"the pruning plan does not fit: want {kept.of} channels ({side}), got {length}",
                where=where,
                hint=_HINT,
            )
        for name, tensor in tensors_of_layer(module):
            if name == "weight":
                yield module, name, _SIDES[layer.kind][side], kept
            elif side == "out" and layer.kind != "embedding":
                yield module, name, 0, _repeated(kept, tensor.shape[0])
    bias = getattr(module, "bias", None)
    if layer.kind == "transposed convolution" and layer.groups is not None and bias is not None:
        # Whole groups go, counted by what comes in; with each goes what it makes.
        if layer.into is None:
            raise ModelError("the pruning plan does not say which groups are kept", where=where, hint=_HINT)
        each = len(bias) // layer.into.of
        kept_in = (index * each + at for index in layer.into.kept for at in range(each))
        yield module, "bias", 0, Kept(len(bias), tuple(kept_in))


def _repeated(kept: Kept, length: int) -> Kept:
    """The same in every group of a transposed convolution, whose weight counts one group."""
    starts = range(0, length, kept.of)
    return Kept(length, tuple(start + index for start in starts for index in kept.kept))


def _check_groups(module: Any, layer: Layer, where: str) -> None:
    """Refuse a plan that leaves channels which do not fill the groups."""
    before = module.num_groups if isinstance(module, nn.GroupNorm) else getattr(module, "groups", 1)
    groups = before if layer.groups is None else layer.groups
    side = layer.into if layer.kind == "transposed convolution" else layer.out
    length = length_of(module, layer.kind, "into" if layer.kind == "transposed convolution" else "out")
    rest = length if side is None else len(side.kept)
    if not 0 < groups <= before or rest % groups or (groups < before and length // before != rest // groups):
        raise ModelError(
            f"the pruning plan does not fit: {rest} channels in {groups} groups, of {length} in {before}",
            where=where,
            hint=_HINT,
        )


def _recount(module: Any, layer: Layer) -> None:
    """Let the layer's own numbers follow its tensors."""
    if layer.groups is not None:
        setattr(module, "num_groups" if isinstance(module, nn.GroupNorm) else "groups", layer.groups)
    if layer.kind == "convolution":
        module.out_channels, module.in_channels = (
            module.weight.shape[0],
            module.weight.shape[1] * module.groups,
        )
    elif layer.kind == "transposed convolution":
        module.in_channels, module.out_channels = (
            module.weight.shape[0],
            module.weight.shape[1] * module.groups,
        )
    elif layer.kind == "linear":
        module.out_features, module.in_features = module.weight.shape
    elif layer.kind == "embedding":
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.LayerNorm) and layer.out is not None:
        module.normalized_shape = (len(layer.out.kept),)
    elif layer.out is not None:
        for name in _COUNTS:
            if hasattr(module, name):
                setattr(module, name, len(layer.out.kept))
