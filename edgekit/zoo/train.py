"""Trains a model of the zoo on synthetic data.

    python -m edgekit.zoo.train register3d --out weights.safetensors

The schedule is a time budget: learning rate and stopping follow the elapsed share of ``--minutes``. The
weights written are the exponential moving average over the steps, as float16.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save
from torch import Generator, Tensor, nn

from edgekit import atomic
from edgekit.torch.source import load_weights
from edgekit.zoo import (
    anatomy,
    classify2d,
    denoise2d,
    register3d,
    segment2d,
    segment3d,
    synthetic,
    ultrasound,
)

REPORT_EVERY = 100
CHECKPOINT_EVERY_S = 240.0


Loss = Callable[[nn.Module, float], Tensor]
"""Loss of a model over fresh data, at a progress from 0 to 1."""


@dataclass(frozen=True)
class Recipe:
    """How one model is trained: its constructor, one loss over fresh data, and the optimiser's peak rate.

    ``channels_last`` is how 2-D batches lie in memory: it decides the time of a step, not its result.
    """

    build: Callable[[], nn.Module]
    losses: Callable[[Generator, bool], Loss]
    learning_rate: float
    summary: str
    channels_last: bool = False


class Pool:
    """Generated samples, each drawn a few times before a fresh one takes its place.

    A thread makes the next sample meanwhile. Its generator is its own, so timing does not change the samples.
    """

    def __init__(
        self, generate: Callable[[Generator], tuple[Tensor, ...]], size: int, reuse: int, rng: Generator
    ) -> None:
        self._generate, self._size, self._reuse, self._rng = generate, size, reuse, rng
        self._own_rng = torch.Generator().manual_seed(synthetic.choice(rng, 0, 2**31))
        self._samples: list[tuple[Tensor, ...]] = []
        self._drawn = 0
        self._maker = ThreadPoolExecutor(max_workers=1)
        self._next = self._maker.submit(generate, self._own_rng)

    def draw(self) -> tuple[Tensor, ...]:
        """A random sample; a new one joins every ``reuse`` draws."""
        if self._drawn % self._reuse == 0:
            sample = self._next.result()
            self._next = self._maker.submit(self._generate, self._own_rng)
            if len(self._samples) < self._size:
                self._samples.append(sample)
            else:
                self._samples[synthetic.choice(self._rng, 0, self._size)] = sample
        self._drawn += 1
        return self._samples[synthetic.choice(self._rng, 0, len(self._samples))]


def register3d_losses(rng: Generator, bf16: bool) -> Loss:
    """Distance to the known velocity at three resolutions, and between the gradients at the finest.

    Same contrast and clean images come first, the rest fades in over half of the training: from the start,
    different contrasts keep the network from finding out what its cost volume means.
    """
    sides = (48, 48, 64, 80)
    difficulty = 0.0

    def generate(rng: Generator) -> tuple[Tensor, ...]:
        shape = [sides[synthetic.choice(rng, 0, len(sides))] for _ in range(3)]
        return synthetic.registration_case(rng, shape, difficulty)

    pool = Pool(generate, size=160, reuse=4, rng=rng)

    def loss(model: nn.Module, progress: float) -> Tensor:
        nonlocal difficulty
        difficulty = min(1.0, 2 * progress)
        moving, fixed, velocity, body = (t[None] for t in synthetic.random_pose(rng, *pool.draw()))
        network = model.get_submodule("network")
        assert isinstance(network, register3d.VelocityNet)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            levels = network.pyramid(register3d.unit_range(moving), register3d.unit_range(fixed))
        known = F.avg_pool3d(velocity, 2)
        body = F.avg_pool3d(body.float(), 2) + 0.03
        total = torch.zeros(())
        for found, factor, share in zip(levels, (4, 2, 1), (0.3, 0.3, 1.0), strict=True):
            error = 2 * found.float() - F.avg_pool3d(known, factor)
            weight = F.avg_pool3d(body, factor)
            weight = weight / weight.mean()
            total = total + share * (weight * (error.square().sum(1, keepdim=True) + 1e-4).sqrt()).mean()
        for axis in (2, 3, 4):
            total = (
                total + (error.diff(dim=axis).abs() * weight.narrow(axis, 1, error.shape[axis] - 1)).mean()
            )
        # Large displacements would drown small ones.
        return total / (known.square().sum(1).sqrt().mean() + 0.5)

    return loss


def denoise2d_losses(rng: Generator, bf16: bool) -> Loss:
    """Mean logarithm of each image's squared error, that is, its PSNR; noise from 0 to 20 % of the range."""
    side, batch = 128, 8
    pool = Pool(lambda rng: (synthetic.clean_picture(rng, (176, 176)),), size=600, reuse=3, rng=rng)

    def crop() -> tuple[Tensor, Tensor]:
        (picture,) = pool.draw()
        top, left = (synthetic.choice(rng, 0, picture.shape[axis] - side + 1) for axis in (1, 2))
        clean = picture[:, top : top + side, left : left + side].rot90(synthetic.choice(rng, 0, 4), (1, 2))
        clean = clean + synthetic.uniform(rng, 0, 0.1)
        rician = synthetic.choice(rng, 0, 3) == 0
        noisy = synthetic.add_noise(rng, clean, synthetic.uniform(rng, 0, 0.2), rician)
        if synthetic.uniform(rng, 0, 1) < 0.15:
            noisy = noisy.clamp(float(clean.min()), float(clean.max()))
        return clean, noisy

    def loss(model: nn.Module, progress: float) -> Tensor:
        clean, noisy = (torch.stack(part) for part in zip(*(crop() for _ in range(batch)), strict=True))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            denoised = model(noisy)
        error = (denoised.float() - clean).square().mean(dim=(1, 2, 3))
        return torch.log10(error + 1e-6).mean()

    return loss


def overlap_loss(logits: Tensor, labels: Tensor, progress: float) -> Tensor:
    """Cross-entropy plus one minus the soft Dice of each label but the background, over the batch.

    The last label is small. At first its voxels get a fifth of the cross-entropy, and less and less later:
    neither a few voxels of many nor a Dice of probabilities near zero has a gradient that would find it.

    Args:
        logits: [N, K, ...].
        labels: int64 [N, ...].
        progress: From 0 to 1.
    """
    logits = logits.float()
    axes = [axis for axis in range(logits.dim()) if axis != 1]
    share = logits.softmax(1)
    wanted = F.one_hot(labels, logits.shape[1]).movedim(-1, 1).float()
    both = (share * wanted).sum(axes)[1:]
    sizes = (share + wanted).sum(axes)[1:]
    weight = torch.ones(logits.shape[1])
    small = (labels == len(weight) - 1).float().mean().clamp(min=1e-5)
    weight[-1] = 1 + 0.2 * (1 - progress) ** 2 / small
    return F.cross_entropy(logits, labels, weight) + (1 - (2 * both + 1) / (sizes + 1)).mean()


def segment2d_losses(rng: Generator, bf16: bool) -> Loss:
    """Overlap with the labels in crops of slices from both scanners, every other one around a lesion."""
    side, batch = 128, 4

    def generate(rng: Generator) -> tuple[Tensor, ...]:
        image, labels = anatomy.abdomen_slice(rng, (256, 256), pick(rng, anatomy.SLICE_SCANNERS))
        return image, labels[None]

    pool = Pool(generate, size=400, reuse=5, rng=rng)

    def crop() -> tuple[Tensor, ...]:
        image, labels = pool.draw()
        top, left = (synthetic.choice(rng, 0, image.shape[axis] - side + 1) for axis in (1, 2))
        if synthetic.choice(rng, 0, 2):
            lesion = (labels[0] == len(segment2d.LABELS) - 1).nonzero()
            row, column = lesion[synthetic.choice(rng, 0, len(lesion))].tolist()
            top, left = (
                min(max(0, at - synthetic.choice(rng, 8, side - 8)), image.shape[1] - side)
                for at in (row, column)
            )
        image, labels = (part[:, top : top + side, left : left + side] for part in (image, labels))
        return image * synthetic.uniform(rng, 0.85, 1.1) + synthetic.uniform(rng, -0.04, 0.04), labels

    def loss(model: nn.Module, progress: float) -> Tensor:
        image, labels = (torch.stack(part) for part in zip(*(crop() for _ in range(batch)), strict=True))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(image.contiguous(memory_format=torch.channels_last))
        return overlap_loss(logits, labels[:, 0], progress)

    return loss


def segment3d_losses(rng: Generator, bf16: bool) -> Loss:
    """Overlap with the labels in whole heads of several sizes, lying in any direction."""
    sides = (48, 48, 48, 64, 64, 64, 96)

    def generate(rng: Generator) -> tuple[Tensor, ...]:
        shape = [sides[synthetic.choice(rng, 0, len(sides))]] * 3
        image, labels = anatomy.head_volume(rng, shape, pick(rng, anatomy.HEAD_SCANNERS))
        return image, labels[None]

    pool = Pool(generate, size=120, reuse=4, rng=rng)

    def loss(model: nn.Module, progress: float) -> Tensor:
        image, labels = synthetic.random_pose(rng, *pool.draw())
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(image[None].contiguous())
        return overlap_loss(logits, labels, progress)

    return loss


def classify2d_losses(rng: Generator, bf16: bool) -> Loss:
    """Cross-entropy over images of two sizes from both probes, each finding as often as the others."""
    sides, batch = (128, 128, 192), 16

    def generator(side: int) -> Callable[[Generator], tuple[Tensor, ...]]:
        def generate(rng: Generator) -> tuple[Tensor, ...]:
            finding = synthetic.choice(rng, 0, len(classify2d.CLASSES))
            image = ultrasound.breast_image(rng, (side, side), finding, pick(rng, ultrasound.PROBES))
            return image, torch.tensor(finding)

        return generate

    pools = {side: Pool(generator(side), size=1200, reuse=6, rng=rng) for side in sorted(set(sides))}

    def draw(pool: Pool) -> tuple[Tensor, Tensor]:
        image, finding = pool.draw()
        image = image.flip(2) if synthetic.choice(rng, 0, 2) else image
        return image * synthetic.uniform(rng, 0.8, 1.1) + synthetic.uniform(rng, 0, 0.05), finding

    def loss(model: nn.Module, progress: float) -> Tensor:
        pool = pools[sides[synthetic.choice(rng, 0, len(sides))]]
        image, finding = (torch.stack(part) for part in zip(*(draw(pool) for _ in range(batch)), strict=True))
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(image.contiguous(memory_format=torch.channels_last))
        return F.cross_entropy(logits.float(), finding)

    return loss


def pick(rng: Generator, names: Sequence[str]) -> str:
    """One of the names."""
    return names[synthetic.choice(rng, 0, len(names))]


RECIPES = {
    "classify2d": Recipe(
        classify2d.build,
        classify2d_losses,
        2e-3,
        "ultrasound images of breasts, two probes, four findings; cross-entropy; Adam, cosine",
        channels_last=True,
    ),
    "segment2d": Recipe(
        segment2d.build,
        segment2d_losses,
        3e-3,
        "slices of abdomens, CT and MR; cross-entropy and Dice; Adam, cosine",
        channels_last=True,
    ),
    "segment3d": Recipe(
        segment3d.build,
        segment3d_losses,
        3e-3,
        "volumes of heads, T1 and FLAIR; cross-entropy and Dice; Adam, cosine",
    ),
    "denoise2d": Recipe(
        denoise2d.build,
        denoise2d_losses,
        1e-3,
        "dead leaves, regions, curves, textures, speckle; Gaussian and Rician noise; mean PSNR; Adam, cosine",
    ),
    "register3d": Recipe(
        register3d.build,
        register3d_losses,
        1e-3,
        "random anatomy, contrasts and velocities; distance to the velocity and its gradient; Adam, cosine",
    ),
}


def train(
    recipe: Recipe, minutes: float, seed: int, bf16: bool, keep: Callable[[nn.Module, int], None]
) -> None:
    """Trains for ``minutes``; calls ``keep(averaged_model, steps)`` every few minutes and at the end."""
    torch.manual_seed(seed)
    model = recipe.build().train()
    if recipe.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy.deepcopy(model).eval()
    loss_of = recipe.losses(torch.Generator().manual_seed(seed), bf16)
    optimiser = torch.optim.Adam(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.99))
    start = kept = time.monotonic()
    recent: list[float] = []
    step = 0
    while (share := (time.monotonic() - start) / max(60 * minutes, 1e-9)) < 1:
        warm_up = min(1.0, (step + 1) / 200)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * warm_up * max(0.01, 0.5 * (1 + math.cos(math.pi * share)))
        loss = loss_of(model, share)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        step += 1
        _average_into(average, model, min(0.998, step / (step + 10)))
        recent.append(float(loss.detach()))
        if step % REPORT_EVERY == 0:
            mean = sum(recent) / len(recent)
            print(f"step {step:6d}  minute {share * minutes:6.2f}  loss {mean:.4f}", flush=True)
            recent.clear()
        if time.monotonic() - kept > CHECKPOINT_EVERY_S:
            keep(average, step)
            kept = time.monotonic()
    keep(average, step)


def _average_into(average: nn.Module, model: nn.Module, decay: float) -> None:
    """Parameters and batch statistics alike: the averaged weights want averaged statistics."""
    with torch.no_grad():
        for mean, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(new, 1 - decay)
            else:
                mean.copy_(new)


def save_weights(model: nn.Module, path: Path, metadata: dict[str, str]) -> None:
    """Writes the weights as float16 safetensors; the file appears whole or not at all.

    Integers, as how many batches a norm has seen, stay what they are.

    Raises:
        UsageError: The path cannot be written.
        LimitError: The disk is full.
    """
    tensors = {
        name: (value.half() if value.is_floating_point() else value).detach().contiguous()
        for name, value in model.state_dict().items()
    }
    atomic.write(path, save(tensors, metadata), force=True)


def _started(recipe: Recipe, weights: Path) -> nn.Module:
    """The model with weights to go on from."""
    model = recipe.build()
    load_weights(model, weights)
    return model


def _history(start: Path | None) -> dict[str, str]:
    """What the weights to go on from say about their own training."""
    if start is None:
        return {}
    with safe_open(start, "pt") as file:
        before = file.metadata() or {}
    return {f"before_{key}": before[key] for key in ("seed", "minutes", "steps") if key in before}


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line of the trainer."""
    parser = argparse.ArgumentParser(prog="python -m edgekit.zoo.train", description=__doc__)
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--out", type=Path, required=True, help="the .safetensors file to write")
    parser.add_argument("--minutes", type=float, default=50.0, help="wall-clock budget")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="weights to go on from instead of random ones")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--bf16", action="store_true", help="bfloat16 convolutions; pays off on CPUs with AMX"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    recipe = RECIPES[options.model]
    if options.start:
        recipe = replace(recipe, build=lambda: _started(RECIPES[options.model], options.start))

    def keep(model: nn.Module, steps: int) -> None:
        metadata = {
            "model": options.model,
            "recipe": recipe.summary,
            "seed": str(options.seed),
            **_history(options.start),
            "minutes": str(options.minutes),
            "threads": str(options.threads),
            "bf16": str(options.bf16),
            "steps": str(steps),
        }
        save_weights(model, options.out, metadata)
        print(f"wrote {options.out} after {steps} steps", flush=True)

    train(recipe, options.minutes, options.seed, options.bf16, keep)


if __name__ == "__main__":
    main()
