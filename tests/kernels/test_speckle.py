"""Speckle by the method that is named: the right one runs, and a wrong option is refused."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import KernelError
from edgekit.kernels import obnlm, speckle_reduce, srad

IMAGE = (100 + 10 * np.random.default_rng(0).standard_normal((24, 30))).astype(np.float32)


def test_the_method_that_is_named_runs():
    np.testing.assert_array_equal(speckle_reduce(IMAGE), obnlm(IMAGE, sigma="estimate"))
    np.testing.assert_array_equal(speckle_reduce(IMAGE, sigma=2.0), obnlm(IMAGE, sigma=2.0))
    got = speckle_reduce(IMAGE, method="srad", iterations=3)
    np.testing.assert_array_equal(got, srad(IMAGE, iterations=3))
    out = np.empty_like(IMAGE)
    assert speckle_reduce(IMAGE, method="srad", out=out) is out


@pytest.mark.parametrize(
    ("options", "message", "hint"),
    [
        ({"method": "median"}, "method: want one of 'obnlm', 'srad'", None),
        ({"methd": "srad"}, "obnlm has no option 'methd'", "did you mean 'method'?"),
        ({"method": "srad", "sigma": 1.0}, "srad has no option 'sigma'", None),
        ({"method": "srad", "iteration": 1}, "srad has no option", "did you mean 'iterations'?"),
    ],
)
def test_what_does_not_fit_is_refused(options, message, hint):
    with pytest.raises(KernelError, match=message) as caught:
        speckle_reduce(IMAGE, **options)
    assert caught.value.where == "speckle_reduce" and caught.value.hint == hint
