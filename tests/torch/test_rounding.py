"""Rounding with gradients; whole layers against ONNX are in ``test_fake_quantize.py``."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgekit.torch.rounding import rounded, rounded_weight


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("inputs", [3, 4])
def test_with_seven_bits_no_pair_of_weights_is_more_than_one_of_eight(inputs: int) -> None:
    weight = torch.randn(6, inputs, 3, 3)
    back = rounded_weight(weight, 0, 7)
    for row, known in zip(back, weight, strict=True):
        taps_first = known.permute(1, 2, 0).reshape(9, inputs)
        pairs = [taps_first[tap, at : at + 2] for tap in range(9) for at in range(0, inputs, 2)]
        flat = taps_first.reshape(-1)
        pairs += [flat[at : at + 2] for at in range(0, len(flat), 2)]
        largest = max(
            float(sign * (sign * pair).clamp(min=0).sum()) * sign for pair in pairs for sign in (1, -1)
        )
        codes = row / (largest / 127)
        torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-3)
        assert codes.abs().max() > 60


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = torch.randn(3, 2)
    weight[1] = 0
    assert torch.equal(rounded_weight(weight, 0)[1], torch.zeros(2))


def test_folding_a_batch_norm_changes_no_integer() -> None:
    convolution, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8).eval()
    nn.init.normal_(norm.weight)
    nn.init.uniform_(norm.running_var, 0.1, 4)
    factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach().reshape(-1, 1, 1, 1)
    weight = convolution.weight.detach()
    torch.testing.assert_close(rounded_weight(weight * factor, 0), rounded_weight(weight, 0) * factor)


def test_gradients_pass_through_the_rounding() -> None:
    x = torch.tensor([0.3, 0.9, 5.0, -7.0], requires_grad=True)
    log_scale = torch.tensor(math.log(0.02), requires_grad=True)
    rounded(x, log_scale, -128, 127).sum().backward()
    assert torch.equal(x.grad, torch.tensor([1.0, 1.0, 0.0, 0.0]))  # clipped values have none
    # LSQ: inside (round(x/s) - x/s), outside the bound; times the scale, for its logarithm.
    inside = sum(round(v / 0.02) - v / 0.02 for v in (0.3, 0.9))
    assert float(log_scale.grad) == pytest.approx(0.02 * (inside + 127 - 128), abs=1e-5)


def test_a_range_that_clips_too_much_is_learned_wider() -> None:
    x, log_scale = torch.randn(4096), torch.tensor(math.log(0.2 / 127), requires_grad=True)
    optimiser = torch.optim.Adam([log_scale], lr=0.05)
    for _ in range(100):
        optimiser.zero_grad()
        (rounded(x, log_scale, -128, 127) - x).square().mean().backward()
        optimiser.step()
    assert 127 * float(log_scale.detach().exp()) > 2
