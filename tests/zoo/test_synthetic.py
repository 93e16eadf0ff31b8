from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from edgekit import kernels
from edgekit.torch.definitions import integrate_plain, warp_plain
from edgekit.zoo import synthetic

SHAPE = (24, 32, 28)

GENERATORS: dict[str, Callable[[Generator], tuple[Tensor, ...]]] = {
    "spline_noise": lambda rng: (synthetic.spline_noise(rng, 2, SHAPE, 5.0),),
    "label_map": lambda rng: (synthetic.label_map(rng, SHAPE),),
    "registration_case": lambda rng: synthetic.registration_case(rng, SHAPE, 1.0),
    "clean_picture": lambda rng: (synthetic.clean_picture(rng, (80, 96)),),
    "add_noise": lambda rng: (synthetic.add_noise(rng, torch.ones(1, 8, 8), 0.1, rician=True),),
}


def seeded(seed: int) -> Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", GENERATORS)
def test_a_seed_decides_everything(name: str) -> None:
    first, again, other = (GENERATORS[name](seeded(seed)) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_spline_noise_has_unit_variance_and_is_smooth() -> None:
    field = synthetic.spline_noise(seeded(0), 8, (96, 96), 6.0)
    assert field.shape == (8, 96, 96)
    assert field.std().item() == pytest.approx(1, abs=0.1)
    assert field.diff(dim=-1).std() < 0.35


def test_gaussian_blur_keeps_constants_and_lowers_noise() -> None:
    torch.testing.assert_close(synthetic.gaussian_blur(torch.ones(1, 9, 9), 2.0), torch.ones(1, 9, 9))
    noise = torch.randn(1, 64, 64, generator=seeded(0))
    # A Gaussian of sigma s leaves 1 / (4 pi s^2) of the variance of white noise.
    assert synthetic.gaussian_blur(noise, 2.0).var().item() == pytest.approx(1 / (16 * torch.pi), rel=0.3)
    rows = synthetic.gaussian_blur(noise, 0.0, 2.0)
    assert rows.diff(dim=2).std() < 0.3 * rows.diff(dim=1).std()


@pytest.mark.parametrize("seed", range(6))
def test_registration_case_is_what_it_says(seed: int) -> None:
    moving, fixed, velocity, body = synthetic.registration_case(seeded(seed), SHAPE, 0.0)
    assert moving.shape == fixed.shape == body.shape == (1, *SHAPE)
    assert velocity.shape == (3, *SHAPE)
    assert body.any()
    flow = integrate_plain(velocity[None], 7, "edge")
    assert kernels.folding_fraction(flow.numpy()) <= 1e-3
    # Without difficulty the fixed image is the moving one pulled by the field, up to the range.
    moved = warp_plain(moving[None], flow, 1, "edge")[0]
    stacked = torch.stack([moved.flatten(), fixed.flatten()])
    assert torch.corrcoef(stacked)[0, 1] > 0.999


def test_pose_turns_images_and_field_together() -> None:
    moving, fixed, velocity, _ = synthetic.registration_case(seeded(2), SHAPE, 0.0)
    poses = set()
    for seed in range(5):
        posed = synthetic.random_pose(seeded(seed), moving, fixed, velocity)
        poses.add(tuple(posed[0].shape))
        moved = warp_plain(posed[0][None], integrate_plain(posed[2][None], 7, "edge"), 1, "edge")[0]
        stacked = torch.stack([moved.flatten(), posed[1].flatten()])
        assert torch.corrcoef(stacked)[0, 1] > 0.999
    assert len(poses) > 1


def test_pictures_fill_the_unit_range() -> None:
    rng = seeded(1)
    for _ in range(12):
        picture = synthetic.clean_picture(rng, (72, 88))
        assert picture.shape == (1, 72, 88)
        assert picture.min() >= 0
        assert picture.max() <= 1
        assert picture.std() > 0.005


def test_noise_has_the_distribution_it_is_called_by() -> None:
    clean = torch.full((1, 200, 200), 1.0)
    gaussian = synthetic.add_noise(seeded(0), clean, 0.1, rician=False)
    assert gaussian.mean().item() == pytest.approx(1, abs=2e-3)
    assert gaussian.std().item() == pytest.approx(0.1, rel=0.03)
    # Without a signal the magnitude is Rayleigh distributed, of mean sigma sqrt(pi / 2).
    rayleigh = synthetic.add_noise(seeded(0), 0 * clean, 0.1, rician=True)
    assert rayleigh.mean().item() == pytest.approx(0.1 * (torch.pi / 2) ** 0.5, rel=0.02)
