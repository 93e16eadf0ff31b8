from __future__ import annotations

import pytest
import torch
from torch import Generator

from edgekit.zoo import classify2d, ultrasound

SHAPE = (64, 96)
NORMAL, CYST, FIBROADENOMA, CARCINOMA = range(len(classify2d.CLASSES))


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


def mean_image(finding: int, probe: str = "fine", count: int = 16) -> torch.Tensor:
    images = [ultrasound.breast_image(seeded(seed), SHAPE, finding, probe) for seed in range(count)]
    return torch.stack(images).mean(0)[0]


@pytest.mark.parametrize("probe", ultrasound.PROBES)
@pytest.mark.parametrize("finding", range(len(classify2d.CLASSES)))
def test_a_seed_decides_everything(finding: int, probe: str) -> None:
    first, again, other = (ultrasound.breast_image(seeded(s), SHAPE, finding, probe) for s in (3, 3, 4))
    assert first.shape == (1, *SHAPE)
    assert first.min() >= 0
    assert first.max() <= 1
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_findings_are_dark_and_change_what_lies_behind_them() -> None:
    normal, cyst, solid, cancer = (mean_image(finding) for finding in range(len(classify2d.CLASSES)))
    middle, behind = (slice(24, 36), slice(33, 63)), (slice(48, 62), slice(33, 63))
    assert cyst[middle].mean() < cancer[middle].mean() < normal[middle].mean()
    assert cyst[middle].mean() < solid[middle].mean() < normal[middle].mean()
    assert cancer[behind].mean() < solid[behind].mean() < cyst[behind].mean()


def test_a_coarse_probe_has_longer_speckles() -> None:
    fine, coarse = (
        ultrasound.breast_image(seeded(0), SHAPE, NORMAL, probe)[0] for probe in ("fine", "coarse")
    )
    steps = [image.diff(dim=1).std() / image.std() for image in (fine, coarse)]
    assert steps[1] < 0.75 * steps[0]
