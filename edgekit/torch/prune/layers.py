"""What torch's operators with weights do to labels, and those that treat every channel by itself."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from edgekit.torch.prune.atoms import NONE, Ids
from edgekit.torch.prune.labels import Labels, compact, couple, varying
from edgekit.torch.prune.rules import Call, Cost, rule


def _channels(call: Call, label: Labels, axis: int = 1) -> Ids:
    """One atom for each index of an axis; what varies beside it is made one class with it."""
    found = np.full(label.shape[axis], NONE)
    for part in label.parts:
        rows = np.moveaxis(part, axis, 0).reshape(part.shape[axis], -1)
        if len(rows) == 1 < label.shape[axis]:
            call.atoms.fix(rows, call.meets)
            continue
        call.atoms.merge(rows, call.meets)
        if (found != NONE).any():
            call.atoms.unify(found, rows[:, 0], call.meets)
        found = np.where(found == NONE, rows[:, 0], found)
    return found


@rule("convolution")
def _convolution(call: Call) -> Labels:
    weight, image = call.labels("weight"), call.labels("input")
    for part in weight.parts:
        if varying(part) - {0, 1}:
            call.atoms.fix(part, call.because("keeps its kernel"))
    first, second = weight.along(0), weight.along(1)
    incoming, outgoing = _sides(call, first, second)
    call.atoms.unify(_channels(call, image), incoming, call.meets)
    # With one channel in each group nothing is summed up: the channels only pass through.
    if len(incoming) > call.given["groups"]:
        call.findings.consumed.append(incoming)
    for bias in call.optional("bias"):
        call.atoms.unify(outgoing, bias.along(0), call.meets)
    # Every weight is used once for each pixel, of the result or, transposed, of the image.
    pixels = math.prod(image.shape[2:] if call.given["transposed"] else call.shape[2:])
    macs = call.shape[0] * pixels * math.prod(weight.shape)
    call.findings.costs.append(Cost(macs, (first, second)))
    return call.channels(outgoing)


def _sides(call: Call, first: Ids, second: Ids) -> tuple[Ids, Ids]:
    """Atoms of a convolution's incoming and outgoing channels, from those of its weight's first two axes.

    A group loses as many channels as any other, at the same places; where a group has one incoming channel,
    it goes as a whole.
    """
    groups, transposed = call.given["groups"], call.given["transposed"]
    if groups == 1:
        return (first, second) if transposed else (second, first)
    each_first, each_second = len(first) // groups, len(second)
    if transposed and each_first == 1:
        call.atoms.fix(second, call.because("keeps what a group makes"))
        return first, np.repeat(first, each_second)
    if not transposed and each_second == 1:
        rows = first.reshape(groups, each_first)
        call.atoms.merge(rows, call.meets)
        return rows[:, 0], first
    call.atoms.merge(first.reshape(groups, each_first).T, call.meets)
    shared = np.tile(second, groups)
    return (first, shared) if transposed else (shared, first)


def _contract(call: Call, left: Labels, right: Labels) -> tuple[list[Ids], tuple[Ids, ...]]:
    """Parts of the labels of ``left @ right``, [..., I, K] and [..., K, J], and the factors of its cost."""
    summed = [p for p in left.parts if p.shape[-1] > 1], [p for p in right.parts if p.shape[-2] > 1]
    outer = [p for p in left.parts if p.shape[-1] == 1], [p for p in right.parts if p.shape[-2] == 1]
    for part in (*summed[0], *summed[1]):
        if min(part.shape[-2:]) > 1:
            call.atoms.fix(part, call.meets)
    rows = [part[..., 0, :] for part in summed[0]], [part[..., :, 0] for part in summed[1]]
    call.findings.consumed += rows[0]
    _pair(call, *rows)
    batch = set(range(len(left.shape) - 2))
    _pair(call, *([part for part in parts if varying(part) & batch] for parts in outer))
    factors = [part.reshape(-1) for part in (rows[0][:1] or rows[1][:1])]
    factors += [part.reshape(-1) for part in outer[1]]
    return [*outer[0], *outer[1]], tuple(factors)


def _pair(call: Call, left: Sequence[Ids], right: Sequence[Ids]) -> None:
    """Couple every part of one side with every part of the other; alone they stay."""
    for one in left:
        for other in right:
            call.atoms.unify(one, other, call.meets)
    for part in left if not right else right if not left else ():
        call.atoms.fix(part, call.meets)


@rule("mm", "bmm", "addmm", "baddbmm")
def _matmul(call: Call) -> Labels:
    names = {"addmm": ("mat1", "mat2"), "baddbmm": ("batch1", "batch2")}.get(call.name, ("self", "mat2"))
    left, right = map(call.labels, names)
    parts, factors = _contract(call, left, right)
    call.findings.costs.append(Cost(math.prod(call.shape) * left.shape[-1], factors))
    product = compact(parts, call.shape, call.atoms)
    if names[0] == "self":
        return product
    return couple([product, call.labels("self")], call.atoms, call.meets)


@rule("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
def _batch_norm(call: Call) -> list[Labels]:
    channels = _channels(call, call.labels("input"))
    _scale(call, channels, "weight", "bias", "running_mean", "running_var")
    return [call.channels(channels)]


@rule("native_group_norm")
def _group_norm(call: Call) -> list[Labels]:
    """Groups go as a whole, so that the statistics of the others stay; a single group is a layer norm."""
    channels, groups = _channels(call, call.labels("input")), call.given["group"]
    if groups > 1:
        call.atoms.merge(channels.reshape(groups, -1), call.meets)
    else:
        call.findings.inexact.append(channels)
    _scale(call, channels, "weight", "bias")
    return [call.channels(channels)]


def _scale(call: Call, channels: Ids, *names: str) -> None:
    """Couple channels with what a normalization has for each of them."""
    for label in call.optional(*names):
        if label.shape == channels.shape:
            call.atoms.unify(channels, label.along(0), call.meets)


@rule("native_layer_norm")
def _layer_norm(call: Call) -> list[Labels]:
    label = call.labels("input")
    rank = len(label.shape)
    over = set(range(rank - len(call.given["normalized_shape"]), rank))
    call.findings.inexact += [part for part in label.parts if varying(part) & over]
    return [couple([label, *call.optional("weight", "bias")], call.atoms, call.meets)]


@rule("embedding")
def _embedding(call: Call) -> Labels:
    weight = call.labels("weight")
    for part in weight.parts:
        if part.shape[0] > 1:
            call.atoms.fix(part, call.because("looks rows up"))
    return call.channels(weight.along(1), len(call.shape) - 1)


@rule("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d")
@rule("replication_pad3d", "avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d")
@rule("max_pool2d_with_indices", "max_pool3d_with_indices", "adaptive_max_pool2d", "adaptive_max_pool3d")
@rule("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d")
@rule("upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d", "_upsample_bilinear2d_aa")
@rule("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d")
@rule("grid_sampler_2d", "grid_sampler_3d", "edgekit.warp", "edgekit.grid_sample")
def _channelwise(call: Call) -> Labels | list[Labels]:
    """Each channel by itself over its pixels."""
    image, *others = call.tensors()
    for other in others:
        call.atoms.fix(call.labels_of(other).ids, call.meets)
    dims = re.search(r"([123])d", call.name)
    axis = image.dim() - 1 - int(dims[1]) if dims else 1
    found = call.channels(_channels(call, call.labels_of(image), axis), axis)
    return [found] * len(call.result) if isinstance(call.result, (tuple, list)) else found


@rule("pixel_shuffle")
def _pixel_shuffle(call: Call) -> Labels:
    """[N, C r r, H, W] to [N, C, H r, W r]: the r r channels that become one go together."""
    rows = _channels(call, call.labels("self")).reshape(call.shape[1], -1)
    call.atoms.merge(rows, call.meets)
    return call.channels(rows[:, 0])


@rule("pixel_unshuffle")
def _pixel_unshuffle(call: Call) -> Labels:
    channels = _channels(call, call.labels("self"))
    return call.channels(np.repeat(channels, call.shape[1] // len(channels)))
