"""The operators in PyTorch: the same table of cases as in every other runtime."""

from __future__ import annotations

import pytest
import torch
from hosts.cases import HostCase, cases

from edgekit.graph import opset
from edgekit.torch import denoising, operators

CASES = list(cases())


def call(case: HostCase, feed: tuple[torch.Tensor, ...]) -> torch.Tensor:
    operator = opset.OPERATORS[case.operator]
    home = denoising if hasattr(denoising, operator.kernel) else operators
    return getattr(home, operator.kernel)(*feed, **operator.options(case.attributes))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_cases(case: HostCase) -> None:
    for feed, expected in zip(case.feeds, case.expected(), strict=True):
        with torch.inference_mode():
            got = call(case, tuple(map(torch.from_numpy, feed)))
        case.check(got.numpy(), expected)
