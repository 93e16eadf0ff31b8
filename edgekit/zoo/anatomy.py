"""Labelled images of a body that never was: slices of an abdomen, volumes of a head.

Organs are ellipsoids on a grid that a smooth random field bends; what a scanner does to them (partial volume,
shading, noise) comes after. Lengths are shares of half the image's shortest side, axes (y, x) or (z, y, x).
Every generator takes a :class:`torch.Generator`; the same seed and arguments give the same result.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from edgekit.zoo.synthetic import add_noise, choice, gaussian_blur, spline_noise, uniform

SLICE_SCANNERS = ("ct", "mr")
HEAD_SCANNERS = ("t1", "flair")

# Tissues of the abdomen.
_AIR, _FAT, _MUSCLE, _LIVER, _KIDNEY, _LESION, _SPLEEN, _BONE, _MARROW, _VESSEL, _BOWEL, _FLUID = range(12)
_LABEL_OF_TISSUE = torch.tensor([0, 0, 0, 1, 2, 3, 0, 0, 0, 1, 0, 0])

# Mean grey value of each of them, and how much it differs between people.
_CT = [0.0, 0.27, 0.50, 0.60, 0.66, 0.51, 0.57, 0.92, 0.64, 0.68, 0.45, 0.38]
_MR = [0.0, 0.85, 0.30, 0.42, 0.58, 0.60, 0.55, 0.12, 0.50, 0.20, 0.40, 0.92]
_SPREAD = [0.0, 0.03, 0.03, 0.03, 0.04, 0.03, 0.04, 0.05, 0.06, 0.04, 0.06, 0.04]

# Tissues of the head.
_SCALP, _SKULL, _CSF, _GREY, _WHITE, _VENTRICLE, _SPOT = range(1, 8)
_LABEL_OF_HEAD = torch.tensor([0, 0, 0, 0, 1, 1, 2, 3])
_T1 = [0.0, 0.85, 0.12, 0.22, 0.54, 0.74, 0.20, 0.57]
_FLAIR = [0.0, 0.65, 0.12, 0.16, 0.60, 0.48, 0.13, 0.70]
_HEAD_SPREAD = [0.0, 0.08, 0.03, 0.04, 0.03, 0.03, 0.04, 0.03]


def abdomen_slice(rng: Generator, shape: Sequence[int], scanner: str) -> tuple[Tensor, Tensor]:
    """An image [1, H, W] in [0, 1] and its labels, int64 [H, W]: liver 1, kidney 2, lesion 3.

    ``scanner`` is one of :data:`SLICE_SCANNERS`. Spleen, vessels, bowel and gall bladder look like what is
    labelled and are not; liver vessels count as liver. There is at least one lesion.
    """
    tissue = _abdomen(rng, shape)
    grey = _grey_values(rng, _CT if scanner == "ct" else _MR, _SPREAD)
    # How much a lesion stands out decides how hard a case is.
    away = uniform(rng, 0.09, 0.2)
    grey[_LESION] = grey[_LIVER] + (-away if scanner == "ct" else 1.3 * away)
    image = grey[tissue] + uniform(rng, 0.01, 0.03) * spline_noise(rng, 1, shape, uniform(rng, 2, 5))[0] * (
        tissue > 0
    )
    if scanner == "ct":
        image = gaussian_blur(image[None], uniform(rng, 0.5, 0.9))
        grain = gaussian_blur(torch.randn(image.shape, generator=rng), uniform(rng, 0.4, 0.8))
        image = image + uniform(rng, 0.025, 0.06) * grain / grain.std()
    else:
        image = gaussian_blur(image[None], uniform(rng, 0.6, 1.2))
        image = _shaded(rng, image, 0.22)
        image = add_noise(rng, image, uniform(rng, 0.025, 0.06), rician=True)
    return image.clamp(0, 1), _LABEL_OF_TISSUE[tissue]


def head_volume(rng: Generator, shape: Sequence[int], scanner: str) -> tuple[Tensor, Tensor]:
    """An image [1, D, H, W] and its labels, int64 [D, H, W]: brain 1, ventricle 2, lesion 3.

    ``scanner`` is one of :data:`HEAD_SCANNERS`; the unit of the image is arbitrary. There is at least one
    lesion, in the white matter.
    """
    tissue = _head(rng, shape)
    grey = _grey_values(rng, _T1 if scanner == "t1" else _FLAIR, _HEAD_SPREAD)
    away = uniform(rng, 0.13, 0.28)
    grey[_SPOT] = grey[_WHITE] + (-away if scanner == "t1" else 1.1 * away)
    image = grey[tissue]
    if choice(rng, 0, 2):
        texture = spline_noise(rng, 1, shape, uniform(rng, 2, 5))[0]
        image = image + uniform(rng, 0.01, 0.03) * texture * (tissue > 0)
    image = gaussian_blur(image[None], uniform(rng, 0.45, 0.85))
    image = _shaded(rng, image, 0.18)
    image = add_noise(rng, image, uniform(rng, 0.02, 0.06), rician=True)
    return image * uniform(rng, 100, 1500), _LABEL_OF_HEAD[tissue]


def _grey_values(rng: Generator, means: list[float], spreads: list[float]) -> Tensor:
    grey = torch.tensor(means) + torch.tensor(spreads) * torch.randn(len(means), generator=rng)
    return grey.clamp(min=0)


def _shaded(rng: Generator, image: Tensor, strength: float) -> Tensor:
    """The image under a coil that does not see all of it alike."""
    side = min(image.shape[1:])
    shading = spline_noise(rng, 1, image.shape[1:], side * uniform(rng, 0.35, 0.6))
    return image * torch.exp(uniform(rng, 0, strength) * shading)


class _Grid:
    """Coordinates around the middle of the image, bent by a smooth random field; draws on them."""

    def __init__(self, rng: Generator, shape: Sequence[int], bend: float) -> None:
        self._rng = rng
        self.half = min(shape) / 2
        bent = spline_noise(rng, len(shape), shape, self.half * uniform(rng, 0.5, 0.8)) * bend
        self._axes = [
            ((torch.arange(size) - (size - 1) / 2) / self.half).reshape(
                [-1 if a == axis else 1 for a in range(len(shape))]
            )
            + bent[axis]
            for axis, size in enumerate(shape)
        ]

    def near(self, *values: float, by: float) -> list[float]:
        """Each value, moved by up to ``by``."""
        return [value + uniform(self._rng, -by, by) for value in values]

    def ellipsoid(self, centre: Sequence[float], radii: Sequence[float], turn: float = 0.0) -> Tensor:
        """Squared distance from ``centre`` in units of ``radii``; ``turn`` turns the last two axes."""
        offsets = [axis - at for axis, at in zip(self._axes, centre, strict=True)]
        cos, sin = torch.cos(torch.tensor(turn)), torch.sin(torch.tensor(turn))
        y, x = offsets[-2], offsets[-1]
        offsets[-2:] = [cos * y + sin * x, cos * x - sin * y]
        total = torch.zeros(())
        for offset, radius in zip(offsets, radii, strict=True):
            total = total + (offset / radius) ** 2
        return total

    def spots(self, inside: Tensor, count: int, smallest: float, largest: float) -> Tensor:
        """Small ellipsoids whose centres lie well ``inside``, where there is room; cut off at its edge.

        Radii are in voxels.
        """
        found = torch.zeros_like(inside)
        room = gaussian_blur(inside[None].float(), largest / 2)[0] * inside
        places = (room > min(0.9, 0.9 * float(room.max()))).nonzero()
        dims = inside.dim()
        for _ in range(count):
            place = places[choice(self._rng, 0, len(places))]
            radii = [uniform(self._rng, smallest, largest) for _ in range(dims)]
            total = torch.zeros(())
            for axis, size in enumerate(inside.shape):
                line = ((torch.arange(size) - place[axis]) / radii[axis]) ** 2
                total = total + line.reshape([-1 if a == axis else 1 for a in range(dims)])
            found |= total < 1
        return found & inside


def _abdomen(rng: Generator, shape: Sequence[int]) -> Tensor:
    """Which tissue each pixel shows, int64 [H, W]: seen from the feet, front up, the liver on the left."""
    grid = _Grid(rng, shape, bend=0.05)
    body = grid.ellipsoid(grid.near(0, 0, by=0.03), [uniform(rng, 0.66, 0.8), uniform(rng, 0.88, 0.96)])
    rim, wall = uniform(rng, 0.74, 0.9), uniform(rng, 0.13, 0.2)
    cavity = body < rim - wall
    tissue = torch.zeros(tuple(shape), dtype=torch.int64)
    tissue[body < 1] = _FAT
    tissue[body < rim] = _MUSCLE
    tissue[cavity] = _FAT
    for _ in range(choice(rng, 3, 9)):
        centre = [uniform(rng, -0.5, 0.25), uniform(rng, -0.3, 0.7)]
        loop = grid.ellipsoid(centre, [uniform(rng, 0.07, 0.17), uniform(rng, 0.07, 0.2)])
        tissue[(loop < 1) & cavity] = _BOWEL
        if choice(rng, 0, 2):
            tissue[(loop < uniform(rng, 0.1, 0.6)) & cavity] = _AIR
    large = grid.ellipsoid(
        grid.near(-0.1, -0.45, by=0.05), grid.near(0.42, 0.36, by=0.06), uniform(rng, -0.3, 0.3)
    )
    lobe = grid.ellipsoid(grid.near(-0.3, -0.05, by=0.06), grid.near(0.17, 0.34, by=0.06))
    liver = ((large < 1) | (lobe < 1)) & (body < rim - wall - 0.03)
    tissue[liver] = _LIVER
    spleen = grid.ellipsoid(grid.near(0.08, 0.6, by=0.05), grid.near(0.28, 0.15, by=0.04))
    tissue[(spleen < 1) & (body < rim - wall - 0.03)] = _SPLEEN
    _draw_behind(rng, grid, tissue)
    # A thin line along the zero set of a smooth field: a vessel, cut lengthwise.
    field = spline_noise(rng, 1, shape, grid.half * uniform(rng, 0.15, 0.3))
    slope = torch.linalg.vector_norm(torch.stack(torch.gradient(field, dim=(1, 2))), dim=0).clamp(min=1e-3)
    vessel = (field.abs() / slope)[0] < grid.half / 128 * uniform(rng, 0.7, 1.8)
    tissue[vessel & (tissue == _LIVER)] = _VESSEL
    if choice(rng, 0, 2):
        bladder = grid.ellipsoid(grid.near(0.12, -0.3, by=0.08), grid.near(0.1, 0.07, by=0.02))
        tissue[(bladder < 1) & cavity] = _FLUID
    parenchyma = (tissue == _LIVER) | (tissue == _VESSEL)
    pixel = max(0.75, grid.half / 128)
    tissue[grid.spots(parenchyma, choice(rng, 1, 4), 2.6 * pixel, 7.5 * pixel)] = _LESION
    return tissue


def _draw_behind(rng: Generator, grid: _Grid, tissue: Tensor) -> None:
    """Spine, ribs, large vessels and kidneys."""
    spine = grid.ellipsoid(grid.near(0.36, 0, by=0.03), grid.near(0.15, 0.17, by=0.02))
    tissue[spine < 1] = _BONE
    tissue[spine < 0.75] = _MARROW
    arch = grid.ellipsoid(grid.near(0.56, 0, by=0.02), grid.near(0.09, 0.12, by=0.02))
    tissue[arch < 1] = _BONE
    tissue[arch < 0.4] = _FLUID
    for side in (-1, 1):
        vessel = grid.ellipsoid(grid.near(0.15, 0.09 * side, by=0.02), grid.near(0.06, 0.06, by=0.015))
        tissue[vessel < 1] = _VESSEL
        kidney = grid.ellipsoid(
            grid.near(0.27, 0.42 * side, by=0.05),
            grid.near(0.17, 0.115, by=0.025),
            side * uniform(rng, 0, 0.6),
        )
        tissue[kidney < 1] = _KIDNEY
        pelvis = grid.ellipsoid(grid.near(0.27, 0.37 * side, by=0.03), grid.near(0.05, 0.035, by=0.015))
        if choice(rng, 0, 2):
            tissue[(pelvis < 1) & (kidney < 1)] = _KIDNEY if choice(rng, 0, 2) else _FLUID
        for height in (-0.15, 0.12, 0.35):
            rib = grid.ellipsoid(
                grid.near(height, 0.8 * side, by=0.05), grid.near(0.08, 0.03, by=0.01), side * 0.4
            )
            tissue[(rib < 1) & (tissue == _MUSCLE)] = _BONE
    # The vessels beside the spine are outside of the liver: they must not count as it.
    beside = grid.ellipsoid([0.15, 0.0], [0.14, 0.2]) < 1
    tissue[beside & (tissue == _VESSEL)] = _SPLEEN


def _head(rng: Generator, shape: Sequence[int]) -> Tensor:
    """Which tissue each voxel shows, int64 [D, H, W]."""
    grid = _Grid(rng, shape, bend=0.05)
    head = grid.ellipsoid(grid.near(0, 0, 0, by=0.04), grid.near(0.88, 0.9, 0.78, by=0.06))
    thick = uniform(rng, 0.1, 0.16)
    tissue = torch.zeros(tuple(shape), dtype=torch.int64)
    tissue[head < 1] = _SCALP
    tissue[head < 1 - thick] = _SKULL
    inner = 1 - thick - uniform(rng, 0.08, 0.14)
    tissue[head < inner] = _CSF
    # Folds: the surface of the brain and of its white matter follow one field.
    fold = spline_noise(rng, 1, shape, grid.half * uniform(rng, 0.11, 0.18))[0]
    brain = head + 0.05 * fold.clamp(min=0) < inner - uniform(rng, 0.03, 0.08)
    tissue[brain] = _GREY
    tissue[brain & (head + 0.13 * fold < inner - uniform(rng, 0.22, 0.3))] = _WHITE
    size = uniform(rng, 0.75, 1.35)
    core = torch.zeros_like(brain)
    for side in (-1, 1):
        nucleus = grid.ellipsoid(
            grid.near(0.0, 0.02, 0.25 * side, by=0.03), grid.near(0.15, 0.18, 0.09, by=0.03)
        )
        tissue[nucleus < 1] = _GREY
        front = grid.ellipsoid(
            grid.near(0.06, -0.16, 0.11 * side, by=0.03),
            [0.16 * size, 0.24 * size, 0.065 * size],
            side * uniform(rng, 0, 0.35),
        )
        back = grid.ellipsoid(
            grid.near(-0.02, 0.2, 0.16 * side, by=0.03),
            [0.1 * size, 0.26 * size, 0.07 * size],
            -side * uniform(rng, 0, 0.4),
        )
        core |= (front < 1) | (back < 1)
    third = grid.ellipsoid(grid.near(-0.08, 0.0, 0.0, by=0.02), [0.14 * size, 0.14 * size, 0.03 * size])
    tissue[(core | (third < 1)) & brain] = _VENTRICLE
    white = tissue == _WHITE
    voxel = max(0.7, grid.half / 48)
    tissue[grid.spots(white, choice(rng, 1, 6), 2.0 * voxel, 4.6 * voxel)] = _SPOT
    return tissue
