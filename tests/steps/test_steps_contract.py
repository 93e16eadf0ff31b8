"""Every step: its contract tells what it makes, and what it refuses is refused before anything runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edgekit import kernels, runtime, steps
from edgekit.errors import SpecError, UsageError
from edgekit.samples import generate_inputs
from edgekit.spec import Dim, Step, TensorSpec
from edgekit.steps import STEPS

LENGTHS = Dim(4, 12, 4)
IMAGE = TensorSpec("image", "float32", (1, 2, LENGTHS, 6, 7), "NCDHW", "intensity")
FLOW = TensorSpec("flow", "float32", (1, 3, LENGTHS, 6, 7), "NCDHW", "flow_vox")
FLAT = TensorSpec("flat", "float32", (1, 2, 6, 7), "NCHW", "flow_vox")
SLICE = TensorSpec("slice", "float32", (1, 1, 6, 7), "NCHW", "intensity")

BYTES = TensorSpec("bytes", "uint8", (1, 1, 9, 11), "NCHW", "intensity")
_WINDOW = {"radius": 2, "sigma_space": 1.5, "sigma_range": 0.3}

# At least one for each step: the step, and the tensors that it reads. A new step fails until it is here.
CASES = {
    "warp": [
        (Step("warp", ("image", "flow"), ("moved",)), (IMAGE, FLOW)),
        (Step("warp", ("slice", "flat"), ("moved",), {"order": 0, "boundary": "zero"}), (SLICE, FLAT)),
    ],
    "integrate_velocity": [
        (Step("integrate_velocity", ("flow",), ("moved",)), (FLOW,)),
        (Step("integrate_velocity", ("flat",), ("moved",), {"steps": 3, "boundary": "zero"}), (FLAT,)),
    ],
    "anisotropic_diffusion": [
        (Step("anisotropic_diffusion", ("image",), ("calm",)), (IMAGE,)),
        (Step("anisotropic_diffusion", ("slice",), ("calm",), {"form": "curvature"}), (SLICE,)),
    ],
    "bilateral": [(Step("bilateral", ("image",), ("calm",), _WINDOW), (IMAGE,))],
    "gaussian": [(Step("gaussian", ("slice",), ("calm",), {"sigma": 1.5}), (SLICE,))],
    "guided_filter": [
        (Step("guided_filter", ("image",), ("calm",), {"radius": 2, "epsilon": 0.1}), (IMAGE,)),
    ],
    "median": [
        (Step("median", ("image",), ("calm",)), (IMAGE,)),
        (Step("median", ("bytes",), ("calm",), {"radius": 2, "boundary": "edge"}), (BYTES,)),
    ],
    "non_local_means": [
        (Step("non_local_means", ("slice",), ("calm",)), (SLICE,)),
        (Step("non_local_means", ("image",), ("calm",), {"sigma": 0.2, "search_radius": 2}), (IMAGE,)),
    ],
    "obnlm": [(Step("obnlm", ("bytes",), ("calm",), {"sigma": 8.0}), (BYTES,))],
    "srad": [(Step("srad", ("bytes",), ("calm",), {"iterations": 3}), (BYTES,))],
    "total_variation": [
        (Step("total_variation", ("image",), ("calm",), {"weight": 0.1, "iterations": 5}), (IMAGE,)),
    ],
}
ALL = [case for cases in CASES.values() for case in cases]


def test_every_step_has_a_case():
    assert CASES.keys() == set(STEPS)
    for name in STEPS:
        assert STEPS[name].name == name


@pytest.mark.parametrize("step, specs", ALL, ids=str)
@pytest.mark.parametrize("threads", [1, 2])
def test_makes_what_its_contract_says(step, specs, threads):
    known = {spec.name: spec for spec in specs}
    feeds = generate_inputs(specs)
    before = {name: array.copy() for name, array in feeds.items()}
    tensors = runtime.run_steps((step,), feeds, threads=threads)
    contracts = steps.infer((step,), known)
    assert list(contracts) == [*known, *step.outputs]
    for name in step.outputs:
        assert contracts[name].name == name
        contracts[name].check(tensors[name])
        assert not any(np.shares_memory(tensors[name], array) for array in feeds.values())
    for name, array in before.items():
        np.testing.assert_array_equal(feeds[name], array)


@pytest.mark.parametrize("step, specs", ALL, ids=str)
def test_refuses_what_it_does_not_know(step, specs):
    known = {spec.name: spec for spec in specs}
    cases = [
        (replace(step, inputs=(*step.inputs, specs[0].name)), "inputs"),
        (replace(step, inputs=("absent", *step.inputs[1:])), "nothing has made"),
        (replace(step, outputs=()), "got 0 names"),
        (replace(step, outputs=(specs[0].name,)), "there already"),
        (replace(step, options={"no_such_option": 1}), "no option"),
    ]
    kind = STEPS[step.op]
    for name in (*kind.required, *kind.defaults):
        cases.append((replace(step, options={**step.options, name: None}), "want"))
        for wrong in {int: (-7777,), float: (-1.0, float("nan")), str: ("7777",)}[kind.types(name)[0]]:
            cases.append((replace(step, options={**step.options, name: wrong}), "want"))
    for name in kind.required:
        rest = {key: value for key, value in step.options.items() if key != name}
        cases.append((replace(step, options=rest), f"wants option '{name}'"))
    for wrong, what in cases:
        with pytest.raises(SpecError, match=what) as caught:
            steps.infer((wrong,), known)
        assert caught.value.where == str(wrong)
    with pytest.raises(UsageError, match="unknown step") as missing:
        steps.infer((replace(step, op=step.op + "s"),), known)
    assert missing.value.hint == f"did you mean {step.op!r}?"


@pytest.mark.parametrize("step, specs", ALL, ids=str)
def test_refuses_tensors_that_do_not_fit(step, specs):
    for index, spec in enumerate(specs):
        for other in (
            replace(spec, dtype="float64"),
            replace(spec, dims=spec.dims[:2], layout=""),
            replace(spec, dims=(*spec.dims[:2], *(5 for _ in spec.dims[2:]), 3, 3), layout=""),
        ):
            known = {s.name: s for s in (*specs[:index], other, *specs[index + 1 :])}
            with pytest.raises(SpecError):
                steps.infer((step,), known)


@pytest.mark.parametrize("step, specs", ALL, ids=str)
def test_in_place_the_contract_is_the_new_one(step, specs):
    known = {spec.name: spec for spec in specs}
    ahead = replace(step, outputs=step.inputs[:1])
    made = steps.infer((ahead,), known, in_place=True)
    assert list(made) == list(known)
    assert made[step.inputs[0]] == replace(steps.infer((step,), known)[step.outputs[0]], name=step.inputs[0])
    with pytest.raises(SpecError, match="nothing has made") as caught:
        steps.infer((replace(ahead, inputs=(specs[0].name + "s", *step.inputs[1:])),), known, in_place=True)
    assert caught.value.hint == f"did you mean {specs[0].name!r}?"


@pytest.mark.parametrize("axis", [0, 2, 3, 4])
def test_warp_wants_one_grid(axis):
    dims = list(FLOW.dims)
    dims[axis] = 9
    with pytest.raises(SpecError, match="one grid"):
        steps.infer((CASES["warp"][0][0],), {"image": IMAGE, "flow": replace(FLOW, dims=tuple(dims))})


def test_steps_do_what_the_kernels_do():
    feeds = generate_inputs((IMAGE, FLOW))
    chain = (
        Step("integrate_velocity", ("flow",), ("u",), {"steps": 4}),
        Step("warp", ("image", "u"), ("moved",), {"boundary": "zero"}),
    )
    tensors = runtime.run_steps(chain, feeds, threads=1)
    flow_vox = kernels.integrate_velocity(feeds["flow"], steps=4, boundary="edge")
    np.testing.assert_array_equal(tensors["u"], flow_vox)
    np.testing.assert_array_equal(tensors["moved"], kernels.warp(feeds["image"], flow_vox, boundary="zero"))
    assert np.abs(tensors["moved"] - feeds["image"]).max() > 0.01


FILTERS = [case for case in ALL if case[0].op not in ("warp", "integrate_velocity")]


@pytest.mark.parametrize("step, specs", FILTERS, ids=str)
def test_filters_do_what_the_kernels_do(step, specs):
    feeds = generate_inputs(specs)
    (image,) = feeds.values()
    options = {"sigma": "estimate"} if step.op == "non_local_means" else {}
    want = getattr(kernels, step.op)(image, spatial_ndim=image.ndim - 2, **{**options, **step.options})
    got = runtime.run_steps((step,), feeds, threads=1)["calm"]
    np.testing.assert_array_equal(got, want)
    assert not np.array_equal(got, image)
