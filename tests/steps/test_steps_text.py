"""Steps as people type them: what is read is the step that is meant, and nothing else is read."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from edgekit.errors import UsageError
from edgekit.spec import Step
from edgekit.steps import STEPS
from edgekit.steps.base import StepKind
from edgekit.steps.text import parse


@pytest.fixture
def every_type(monkeypatch):
    """A step with an option of each type."""
    defaults = {"count": 1, "sigma": 0.5, "mode": "fast", "exact": False}
    kind = StepKind(
        "every_type", 1, lambda arrays, options, threads: arrays, lambda specs, _: specs, defaults
    )
    monkeypatch.setitem(sys.modules, "step_of_this_test", SimpleNamespace(KIND=kind))
    monkeypatch.setitem(STEPS._entries, "every_type", "step_of_this_test:KIND")


@pytest.mark.parametrize("name", STEPS)
def test_every_step_can_be_typed_with_its_defaults(name):
    kind = STEPS[name]
    inputs = tuple(f"t{index}" for index in range(kind.inputs))
    given = {**{key: each(2) for key, each in kind.required.items()}, **kind.defaults}
    options = " ".join(f"{key}={value}" for key, value in given.items())
    assert parse(f"{name} {' '.join(inputs)} {options}") == Step(name, inputs, inputs[:1], given)


@pytest.mark.parametrize(
    "text, step",
    [
        ("warp image flow", Step("warp", ("image", "flow"), ("image",))),
        (
            "warp order=0 image  boundary=zero flow",
            Step("warp", ("image", "flow"), ("image",), {"order": 0, "boundary": "zero"}),
        ),
        (
            "non_local_means x sigma=12 noise=rician",
            Step("non_local_means", ("x",), ("x",), {"sigma": 12.0, "noise": "rician"}),
        ),
        ("non_local_means x sigma=estimate", Step("non_local_means", ("x",), ("x",), {"sigma": "estimate"})),
        ("gaussian x sigma=2", Step("gaussian", ("x",), ("x",), {"sigma": 2.0})),
        ("integrate_velocity steps=3", Step("integrate_velocity", (), (), {"steps": 3})),
        ("every_type a/b:0.1 count=-2", Step("every_type", ("a/b:0.1",), ("a/b:0.1",), {"count": -2})),
        (
            "every_type x sigma=2 exact=true",
            Step("every_type", ("x",), ("x",), {"sigma": 2.0, "exact": True}),
        ),
        (
            "every_type x sigma=1e-3 mode=a=b",
            Step("every_type", ("x",), ("x",), {"sigma": 1e-3, "mode": "a=b"}),
        ),
    ],
)
def test_options_become_what_their_defaults_are(every_type, text, step):
    read = parse(text)
    assert read == step
    assert [type(value) for value in read.options.values()] == [type(v) for v in step.options.values()]


@pytest.mark.parametrize(
    "text, what, hint",
    [
        ("", "want a step's name", "median image"),
        ("   ", "want a step's name", "median image"),
        ("count=1 every_type x", "want a step's name", "median image"),
        ("every_tipe x", "unknown step 'every_tipe'", "'every_type'"),
        ("every_type x conut=1", "no option 'conut': want count, sigma, mode, exact", "'count'"),
        ("every_type x count=1 count=1", "'count' is given twice", "leave one"),
        ("gaussian x", "step gaussian wants option 'sigma', a float", "sigma=1"),
        ("gaussian x sigma=wide", "option 'sigma' of step gaussian: want float, got 'wide'", ""),
        ("every_type x =1", "want OPTION=VALUE, got '=1'", "median image"),
        ("every_type x count=", "want OPTION=VALUE, got 'count='", "median image"),
        *(
            (f"every_type x count={text}", "want int", "count=1")
            for text in ("1.0", "1_0", "0x1", "one", "9" * 30)
        ),
        *(
            (f"every_type x sigma={text}", "want float", "sigma=0.5")
            for text in ("nan", "inf", "1_0", "wide", "1e999")
        ),
        *(
            (f"every_type x exact={text}", "want true or false", "exact=false")
            for text in ("1", "True", "yes")
        ),
    ],
)
def test_refuses_what_it_cannot_read(every_type, text, what, hint):
    with pytest.raises(UsageError, match=what) as caught:
        parse(text)
    assert caught.value.where and hint in (caught.value.hint or "")
