from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from edgekit.zoo import anatomy, segment2d, segment3d

Draw = Callable[[Generator, tuple[int, ...], str], tuple[Tensor, Tensor]]
BODIES: dict[str, tuple[Draw, tuple[int, ...], tuple[str, ...]]] = {
    "abdomen": (anatomy.abdomen_slice, (128, 144), anatomy.SLICE_SCANNERS),
    "head": (anatomy.head_volume, (32, 48, 32), anatomy.HEAD_SCANNERS),
}


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("body", BODIES)
def test_a_seed_decides_everything(body: str) -> None:
    draw, shape, scanners = BODIES[body]
    for scanner in scanners:
        first, again, other = (draw(seeded(seed), shape, scanner) for seed in (3, 3, 4))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize("body", BODIES)
@pytest.mark.parametrize("seed", range(4))
def test_every_label_is_there_and_the_lesion_is_the_smallest(body: str, seed: int) -> None:
    draw, shape, scanners = BODIES[body]
    image, labels = draw(seeded(seed), shape, scanners[seed % 2])
    assert image.shape == (1, *shape)
    assert image.isfinite().all()
    sizes = torch.bincount(labels.flatten(), minlength=len(segment2d.LABELS))
    assert len(sizes) == len(segment2d.LABELS) == len(segment3d.LABELS)
    assert sizes.argmax() == 0
    assert 0 < sizes[3] < 0.1 * sizes[1]


@pytest.mark.parametrize("body", BODIES)
def test_scanners_show_one_body_in_two_contrasts(body: str) -> None:
    draw, shape, scanners = BODIES[body]
    (first, labels), (second, same) = (draw(seeded(1), shape, scanner) for scanner in scanners)
    assert torch.equal(labels, same)
    # What a lesion is to the tissue around it differs in sign: dark in one, bright in the other.
    signs = [image[0][labels == 3].mean() - image[0][labels == 1].mean() for image in (first, second)]
    assert signs[0] < 0 < signs[1]


def test_slices_keep_to_the_unit_range() -> None:
    for seed, scanner in enumerate(anatomy.SLICE_SCANNERS):
        image, _ = anatomy.abdomen_slice(seeded(seed), (96, 96), scanner)
        assert image.min() >= 0
        assert image.max() <= 1


def test_labels_cannot_be_read_off_the_grey_values() -> None:
    # The best threshold on the truth's own histogram finds less than half of the lesion.
    image, labels = anatomy.abdomen_slice(seeded(5), (192, 192), "ct")
    bins = (image[0] * 63).long().flatten()
    lesion = torch.bincount(bins[labels.flatten() == 3], minlength=64)
    others = torch.bincount(bins[labels.flatten() != 3], minlength=64)
    assert lesion[lesion > others].sum() < 0.5 * lesion.sum()
