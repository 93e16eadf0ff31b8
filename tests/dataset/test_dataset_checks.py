"""What can be told of data is told: another modality, another unit, masks for scans, images of nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from image_sets import body, spec, write_set
from pydicom.data import get_testdata_file

from edgekit.dataset import Dataset, unlike
from edgekit.dataset.record import look_at
from edgekit.errors import InputError, SpecError
from edgekit.volumes import Volume

HOUNSFIELD = spec(1, 1, 8, 8, quantity="hounsfield", value_range=(-1024.0, 3071.0))


def pydicom_file(name: str) -> Any:
    return pydicom.dcmread(get_testdata_file(name, download=False))


def write_slices(folder: Path, name: str, count: int = 8) -> Path:
    """Pictures that are crops of one that pydicom ships, each moved by a few pixels."""
    folder.mkdir()
    for index in range(count):
        data = pydicom_file(name)
        data.PixelData = np.ascontiguousarray(data.pixel_array[index : index + 32, 2 : 2 + 32]).tobytes()
        data.Rows = data.Columns = 32
        data.SOPInstanceUID = f"1.2.3.{index}"
        data.save_as(folder / f"{index}.dcm")
    return folder


def read(folder: Path, contract: Any, **options: Any) -> Dataset:
    dataset = Dataset.open([str(folder)], [contract], **options)
    assert dataset.record.samples == len(dataset)
    return dataset


def test_ct_slices_are_taken_for_hounsfield_units(tmp_path: Path) -> None:
    record = read(write_slices(tmp_path / "ct", "CT_small.dcm"), HOUNSFIELD, patches=2).record
    (facts,) = record.inputs
    assert facts.modalities == ("CT",) and facts.minimum < -500
    assert record.samples == 16


def test_mr_slices_are_refused_by_their_tag(tmp_path: Path) -> None:
    folder = write_slices(tmp_path / "mr", "MR_small.dcm")
    with pytest.raises(SpecError, match="got modality MR") as refused:
        list(Dataset.open([str(folder)], [HOUNSFIELD], patches=2))
    assert refused.value.hint == "choose the CT series of the study"
    with pytest.raises(InputError, match="got modality MR"):
        read(folder, HOUNSFIELD)
    assert read(folder, spec(1, 1, 8, 8)).record.inputs[0].modalities == ("MR",)


def test_a_brain_template_is_no_ct(tmp_path: Path) -> None:
    """NIfTI has no tag; what betrays the MR image that nilearn ships is that nothing in it is below water."""
    from nilearn import datasets

    t1 = datasets.load_mni152_template(resolution=4)
    data = np.asarray(t1.get_fdata(dtype=np.float32)) * 1000
    for index in range(8):
        nibabel.save(
            nibabel.Nifti1Image(data[:, :, index : index + 30], t1.affine), tmp_path / f"{index}.nii"
        )
    contract = spec(1, 1, 16, 16, 16, quantity="hounsfield")
    with pytest.raises(InputError, match="no Hounsfield units: no image of 8 holds fat, lung or air"):
        read(tmp_path, contract)
    assert read(tmp_path, spec(1, 1, 16, 16, 16)).record.samples == 8


def test_values_scaled_to_mean_and_deviation_are_no_hounsfield_units(tmp_path: Path) -> None:
    write_set(tmp_path, low=-60.0, high=1.0)
    with pytest.raises(InputError, match="all lie within"):
        read(tmp_path, HOUNSFIELD)
    write_set(tmp_path, low=-1000.0, high=60.0)
    read(tmp_path, HOUNSFIELD)


def test_stored_values_without_their_intercept_are_no_hounsfield_units(tmp_path: Path) -> None:
    write_set(tmp_path, low=0.0, high=1060.0)
    with pytest.raises(InputError, match="lowest value is") as refused:
        read(tmp_path, HOUNSFIELD)
    assert "intercept" in str(refused.value.hint)


def test_values_outside_the_contract_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path, high=2.0)
    with pytest.raises(InputError, match="values out of range: want 0 … 1, got") as refused:
        read(tmp_path, spec(1, 1, 8, 8, value_range=(0.0, 1.0)))
    assert "case00.npy" in str(refused.value.where)
    with pytest.raises(SpecError, match="values out of range"):
        list(Dataset.open([str(tmp_path)], [spec(1, 1, 8, 8, value_range=(0.0, 1.0))]))


def test_another_unit_is_refused_where_the_contract_states_a_range(tmp_path: Path) -> None:
    write_set(tmp_path)
    with pytest.raises(InputError, match=r"fill 0.\d+ % of the contract's range: want 0 … 255"):
        read(tmp_path, spec(1, 1, 8, 8, value_range=(0.0, 255.0)))
    read(tmp_path, spec(1, 1, 8, 8, value_range=(0.0, 2.0)))


def test_masks_are_no_scans(tmp_path: Path) -> None:
    for index in range(8):
        mask = np.digitize(body((64, 64), index), [0.05, 0.9, 1.1]).astype(np.uint8)
        np.save(tmp_path / f"{index}.npy", mask)
    with pytest.raises(InputError, match="label maps: none of 8 has more than 4 different values"):
        read(tmp_path, spec(1, 1, 64, 64))
    read(tmp_path, spec(1, 1, 64, 64, quantity="label"))
    np.save(tmp_path / "7.npy", body((64, 64), 7))
    read(tmp_path, spec(1, 1, 64, 64))


def test_what_is_odd_and_no_reason_to_refuse_is_noted(tmp_path: Path) -> None:
    write_set(tmp_path / "a", (20, 20), 4)
    assert read(tmp_path / "a", spec(1, 1, 8, 8), patches=2).record.notes == (
        "input 'x': the 8 samples come from 4 images only",
    )
    write_set(tmp_path / "b", (20, 20))
    write_set(tmp_path / "b", (20, 20), 1, high=40.0)
    (note,) = read(tmp_path / "b", spec(1, 1, 8, 8)).record.notes
    assert note.startswith("input 'x': the values of case00.npy span 4") and note.endswith("in one unit?")
    write_slices(tmp_path / "c", "CT_small.dcm")
    write_slices(tmp_path / "c" / "mr", "MR_small.dcm", 1)
    assert "several modalities: CT, MR" in read(tmp_path / "c", spec(1, 1, 8, 8)).record.notes[0]


def test_constant_images_and_such_with_nan_are_refused(tmp_path: Path) -> None:
    write_set(tmp_path)
    np.save(tmp_path / "case03.npy", np.full((8, 8), 4, np.float32))
    for action in (list, lambda dataset: dataset.record):
        with pytest.raises(InputError, match="constant: all 64 values are 4") as refused:
            action(Dataset.open([str(tmp_path)], [spec(1, 1, 8, 8)]))
        assert "case03" in str(refused.value.where)
    values = body((8, 8), 0)
    values[2, 2:4] = np.nan, np.inf
    np.save(tmp_path / "case03.npy", values)
    with pytest.raises(InputError, match="got 2 NaN or infinite of 64"):
        read(tmp_path, spec(1, 1, 8, 8))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_facts_of_an_image(dtype: str) -> None:
    array = (body((40, 50), 0) * 100).astype(dtype)
    facts = look_at(Volume(array), (), (), "here")
    assert (facts.minimum, facts.maximum) == (array.min(), array.max())
    np.testing.assert_allclose(facts.quantiles, np.quantile(array, (0.01, 0.5, 0.99)), atol=2)
    # Between the body, 100 and more, and the noise of the air.
    assert 20 < facts.threshold < 95
    foreground = array > facts.threshold
    assert np.array_equal(foreground, array >= 95)


def test_an_outlier_does_not_move_the_threshold() -> None:
    array = body((60, 60), 0)
    before = look_at(Volume(array), (), (), "here").threshold
    array[0, 0] = 50
    after = look_at(Volume(array), (), (), "here").threshold
    assert 0.2 < before < 1 and 0.2 < after < 1


def test_two_sets_are_held_against_each_other(tmp_path: Path) -> None:
    contract = spec(1, 1, 8, 8)
    ct = read(write_slices(tmp_path / "ct", "CT_small.dcm"), contract).record
    mr = read(write_slices(tmp_path / "mr", "MR_small.dcm"), contract).record
    assert "modality CT against MR" in unlike(ct.inputs, mr.inputs)[0]
    one = read(write_set(tmp_path / "a"), contract).record
    brighter = read(write_set(tmp_path / "b", count=9, high=2.0), contract).record
    assert unlike(one.inputs, brighter.inputs) == ()
    far = read(write_set(tmp_path / "c", low=5, high=6), contract).record
    assert "98 % of the values" in unlike(one.inputs, far.inputs)[0]
    wide = read(write_set(tmp_path / "d", low=-10, high=10), contract).record
    assert len(unlike(one.inputs, wide.inputs)) == len(unlike(wide.inputs, one.inputs)) == 1
