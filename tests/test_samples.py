from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.errors import SpecError
from edgekit.samples import check_inputs, generate_inputs
from edgekit.spec import DTYPES, Dim, TensorSpec

CT = TensorSpec("ct", "float32", (1, 1, Dim(8, 32, 4), 12, 16), "NCDHW")


@given(
    dtype=st.sampled_from(DTYPES),
    quantity=st.sampled_from(["", "intensity", "hounsfield", "label", "flow_vox"]),
    layout=st.sampled_from(["", "NC", "NCHW", "NCDHW"]),
    low=st.floats(-100, 99),
    width=st.none() | st.floats(1, 100),
)
@settings(max_examples=200, deadline=None)
def test_every_sample_keeps_its_own_contract(
    dtype: str, quantity: str, layout: str, low: float, width: float | None
) -> None:
    if dtype.startswith("uint") or dtype == "bool":
        low = abs(low) % 100
    spec = TensorSpec(
        "x",
        dtype,
        (2, 3, 5, 7, 4)[: len(layout) or 3],
        layout,
        quantity,
        value_range=None if width is None or dtype == "bool" else (low, low + width),
    )
    assert spec.check(generate_inputs([spec])["x"]).shape == spec.smallest_shape


def test_a_range_without_a_number_of_the_type_is_refused() -> None:
    with pytest.raises(SpecError, match="no int8 lies in"):
        generate_inputs([TensorSpec("x", "int8", (1,), value_range=(0.25, 0.75))])
    with pytest.raises(SpecError, match="no uint8 lies in"):
        generate_inputs([TensorSpec("x", "uint8", (1,), value_range=(300.0, 400.0))])


def test_the_whole_range_is_used() -> None:
    spec = TensorSpec("ct", "int16", (1, 1, 64, 64), "NCHW", value_range=(-1024.0, 3071.0))
    array = generate_inputs([spec])["ct"]
    assert (array.min(), array.max()) == (-1024, 3071)


def test_samples_vary_are_smooth_and_differ_between_channels() -> None:
    array = generate_inputs([TensorSpec("x", "float32", (2, 2, 64, 64), "NCHW")])["x"]
    assert array.std() > 0.1
    step = np.abs(np.diff(array, axis=-1)).mean()
    assert step < 0.25 * array.std(), "neighbours are much nearer to each other than the image's spread"
    assert np.abs(array[0, 0] - array[1, 1]).max() > 0.1


def test_the_seed_and_the_name_decide_and_the_order_does_not() -> None:
    other = TensorSpec("mr", "float32", CT.dims, CT.layout)
    both, reversed_ = generate_inputs([CT, other], seed=3), generate_inputs([other, CT], seed=3)
    assert all(np.array_equal(both[name], reversed_[name]) for name in both)
    assert not np.array_equal(both["ct"], both["mr"])
    assert not np.array_equal(both["ct"], generate_inputs([CT], seed=4)["ct"])


def test_given_shapes_are_used_and_checked() -> None:
    assert generate_inputs([CT])["ct"].shape == (1, 1, 8, 12, 16)
    assert generate_inputs([CT], shapes={"ct": (1, 1, 20, 12, 16)})["ct"].shape == (1, 1, 20, 12, 16)
    with pytest.raises(SpecError, match="does not fit"):
        generate_inputs([CT], shapes={"ct": (1, 1, 9, 12, 16)})
    with pytest.raises(SpecError, match="no input"):
        generate_inputs([CT], shapes={"mr": (1, 1, 8, 12, 16)})


def test_one_voxel_axes_and_labels() -> None:
    spec = TensorSpec("seg", "uint8", (1, 1, 1, 64, 64), "NCDHW", "label")
    assert set(np.unique(generate_inputs([spec])["seg"])) == {0, 1, 2, 3}
    one = TensorSpec("x", "float32", (1, 1, 1, 1), "NCHW")
    assert np.isfinite(generate_inputs([one])["x"]).all()


def test_given_inputs_are_checked_by_name_and_contract() -> None:
    other = TensorSpec("mr", "float32", (1, 4), "NC")
    given = {"mr": np.ones((1, 4), np.float32), "ct": generate_inputs([CT])["ct"]}
    assert list(check_inputs([CT, other], given)) == ["ct", "mr"]
    with pytest.raises(SpecError, match="no array is given for the input mr"):
        check_inputs([CT, other], {"ct": given["ct"]})
    with pytest.raises(SpecError, match="'mri' is no input") as refused:
        check_inputs([CT, other], {**given, "mri": given["mr"]})
    assert refused.value.hint == "did you mean 'mr'?"
    with pytest.raises(SpecError, match="wrong dtype"):
        check_inputs([other], {"mr": given["mr"].astype(np.float64)})
