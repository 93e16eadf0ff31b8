"""What every operator promises, for every variant and case in the registry."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import KernelError
from edgekit.kernels.base import ISAS, OPERATORS, Case, Operator, Variant, native_status

# What this machine cannot run is named in the head of the report (tests/conftest.py).
VARIANTS = [(name, v.name) for name in OPERATORS for v in OPERATORS[name].variants if not v.missing()]


def variant_of(name: str, variant_name: str) -> tuple[Operator, Variant]:
    operator = OPERATORS[name]
    variant = next(v for v in operator.variants if v.name == variant_name)
    return operator, variant


def cases_of(operator: Operator) -> list[Case]:
    return list(operator.cases(np.random.default_rng(0)))


def run(operator: Operator, variant: Variant, case: Case, threads: int = 1) -> tuple[np.ndarray, ...]:
    outputs = operator.allocate(*case.inputs, **case.options)
    for output in outputs:
        output[...] = 123
    variant.run(*case.inputs, outputs=outputs, threads=threads, **case.options)
    return outputs


def results_of(operator: Operator, case: Case, **keywords) -> tuple[np.ndarray, ...]:
    results = operator.function(*case.inputs, **case.options, **keywords)
    return results if isinstance(results, tuple) else (results,)


def plainest(operator: Operator) -> Case:
    """A case of float32 alone, if there is one."""
    cases = cases_of(operator)
    return next((c for c in cases if all(a.dtype == np.float32 for a in c.inputs)), cases[0])


def scale_of(*arrays: np.ndarray) -> float:
    return max([1.0, *(float(np.abs(a[np.isfinite(a)]).max(initial=0)) for a in arrays)])


def rounding(dtype: np.dtype, scale: float) -> float:
    """What rounding a result to its type adds to an error."""
    if dtype.kind != "f":
        return 0.5
    return scale * float(np.finfo(dtype).eps) / 2 if dtype == np.float16 else 0.0


def assert_close(got: np.ndarray, want: np.ndarray, tolerance: float, scale: float, label: str) -> None:
    if got.dtype == want.dtype:  # a result that is exact
        np.testing.assert_array_equal(got, want, err_msg=label)
        return
    if got.dtype.kind != "f":
        limits = np.iinfo(got.dtype)
        want = np.clip(np.nan_to_num(want, nan=0.0), limits.min, limits.max)
    if scale > 1e30:  # beyond float32's range for sums and products: only what is finite in float32 counts
        want = np.where(np.abs(want) < np.finfo(np.float32).max, want, np.nan)
        both = np.isfinite(want) & np.isfinite(got)
        want, got = want[both], got[both]
    np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want), err_msg=label)
    atol = tolerance * scale + rounding(got.dtype, scale)
    np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=label)


def test_the_extension_is_built():
    assert native_status().missing == ""


def test_this_machine_has_a_scalar_variant():
    assert "scalar" in native_status().isas
    assert set(native_status().isas) <= set(ISAS)


@pytest.mark.parametrize(("name", "variant_name"), VARIANTS)
def test_agrees_with_the_reference(name, variant_name):
    operator, variant = variant_of(name, variant_name)
    for case in cases_of(operator):
        want = operator.reference(*case.inputs, **case.options)
        got = run(operator, variant, case)
        for wanted, result in zip(want, got, strict=True):
            scale = scale_of(wanted, case.inputs[0])
            assert_close(result, wanted, case.slack * variant.tolerance, scale, case.label)


@pytest.mark.parametrize(("name", "variant_name"), VARIANTS)
def test_result_is_independent_of_threads(name, variant_name):
    operator, variant = variant_of(name, variant_name)
    largest = sorted(cases_of(operator), key=lambda case: -case.inputs[0].size)[:12]
    for case in largest:
        one = [output.tobytes() for output in run(operator, variant, case)]
        for threads in (2, 3, 7):
            many = [output.tobytes() for output in run(operator, variant, case, threads)]
            assert many == one, (case.label, threads)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_native_variants_give_the_same_bits(name):
    operator = OPERATORS[name]
    native = [v for v in operator.variants if v.name in ISAS and not v.missing()]
    for case in cases_of(operator):
        plain = run(operator, native[0], case)
        for variant in native[1:]:
            for got, want in zip(run(operator, variant, case), plain, strict=True):
                np.testing.assert_array_equal(got, want, err_msg=f"{variant.name} {case.label}")


@pytest.mark.parametrize("name", list(OPERATORS))
def test_inputs_stay_as_they_were_and_out_is_what_is_returned(name):
    operator = OPERATORS[name]
    case = cases_of(operator)[0]
    before = [array.copy() for array in case.inputs]
    fresh = results_of(operator, case)
    out = np.zeros_like(fresh[0])
    given = results_of(operator, case, out=out)
    assert given[0] is out
    for again, result in zip(given, fresh, strict=True):
        np.testing.assert_array_equal(again, result)
    for array, copy in zip(case.inputs, before, strict=True):
        np.testing.assert_array_equal(array, copy)
    for result, new in zip(fresh, operator.allocate(*case.inputs, **case.options), strict=True):
        assert (result.dtype, result.shape, result.strides) == (new.dtype, new.shape, new.strides)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_tensors_come_back_as_tensors(name):
    import torch

    operator = OPERATORS[name]
    case = plainest(operator)
    want = results_of(operator, case)
    got = operator.function(*map(torch.from_numpy, case.inputs), **case.options)
    for tensor, array in zip(got if isinstance(got, tuple) else (got,), want, strict=True):
        assert isinstance(tensor, torch.Tensor)
        np.testing.assert_array_equal(tensor.numpy(), array)
    out = torch.from_numpy(np.zeros_like(want[0]))
    given = operator.function(*map(torch.from_numpy, case.inputs), **case.options, out=out)
    assert (given[0] if isinstance(given, tuple) else given) is out
    np.testing.assert_array_equal(out.numpy(), want[0])


@pytest.mark.parametrize("name", list(OPERATORS))
def test_a_tensor_that_needs_gradients_is_refused(name):
    import torch

    operator = OPERATORS[name]
    case = plainest(operator)
    tensors = [torch.from_numpy(array).requires_grad_(array.dtype.kind == "f") for array in case.inputs]
    with pytest.raises(KernelError, match="grad") as caught:
        operator.function(*tensors, **case.options)
    assert caught.value.hint is not None and "detach" in caught.value.hint


def spoiled_inputs(array: np.ndarray):
    wanted = f"want .*{array.dtype}"
    yield "list", array.tolist(), "DLPack"
    yield "float64", array.astype(np.float64), wanted
    yield "complex", array.astype(np.complex64), wanted
    if array.itemsize > 1:
        yield "big-endian", array.astype(array.dtype.newbyteorder(">")), wanted
    yield "too few axes", array[0, 0], "axes"
    yield "too many axes", array[None, None], "axes"
    yield "empty axis", array[..., :0], "at least one element"
    yield "no batch", array[:0], "at least one element"
    yield (
        "Fortran order",
        np.asfortranarray(np.zeros([2 * s for s in array.shape], array.dtype)),
        "C-contiguous",
    )
    yield "strided", np.repeat(array, 2, axis=-1)[..., ::2], "C-contiguous"
    yield "reversed", np.repeat(array, 2, axis=-1)[..., ::-1], "C-contiguous"
    yield "2^31 elements", np.broadcast_to(array[..., :1], (*array.shape[:-1], 2**31)), "2\\^31"
    yield (
        "too long an axis",
        np.zeros((*array.shape[:2], *(1 for _ in array.shape[3:]), 2**24 + 1), array.dtype),
        "2\\^24",
    )


@pytest.mark.parametrize("name", list(OPERATORS))
def test_bad_inputs_are_refused(name):
    operator = OPERATORS[name]
    case = next(c for c in cases_of(operator) if min(c.inputs[0].shape[2:]) > 1)
    for position, array in enumerate(case.inputs):
        for label, bad, message in spoiled_inputs(array):
            inputs = [*case.inputs[:position], bad, *case.inputs[position + 1 :]]
            with pytest.raises(KernelError, match=message) as caught:
                operator.function(*inputs, **case.options)
            assert caught.value.where == name, label


@pytest.mark.parametrize("name", list(OPERATORS))
def test_bad_outputs_are_refused(name):
    operator = OPERATORS[name]
    case = next(c for c in cases_of(operator) if min(c.inputs[0].shape[2:]) > 1)
    result = results_of(operator, case)[0]
    shape, dtype = result.shape, result.dtype
    read_only = np.zeros(shape, dtype)
    read_only.flags.writeable = False
    memory = np.zeros(2 * max(array.nbytes for array in case.inputs) + 2 * result.nbytes, np.uint8)

    def output_at(offset: int) -> np.ndarray:
        return memory[offset : offset + result.nbytes].view(dtype).reshape(shape)

    for position, array in enumerate(case.inputs):
        shared = memory[: array.nbytes].view(array.dtype).reshape(array.shape)
        shared[...] = array
        inputs = [*case.inputs[:position], shared, *case.inputs[position + 1 :]]
        last = (array.nbytes - 1) // dtype.itemsize * dtype.itemsize
        for offset in (0, dtype.itemsize, last):
            with pytest.raises(KernelError, match="overlaps"):
                operator.function(*inputs, **case.options, out=output_at(offset))
        operator.function(*inputs, **case.options, out=output_at(last + dtype.itemsize))
    for bad, message in (
        (np.zeros(shape, np.float64), f"want {dtype}"),
        (np.zeros((*shape[:-1], shape[-1] + 1), dtype), "shape"),
        (np.zeros(shape, dtype).tolist(), "DLPack"),
        (np.zeros((*shape, 2), dtype)[..., 0], "C-contiguous"),
        (read_only, "writeable"),
    ):
        with pytest.raises(KernelError, match=message):
            operator.function(*case.inputs, **case.options, out=bad)


@pytest.mark.parametrize("name", list(OPERATORS))
@pytest.mark.parametrize("threads", [0, -1, 1.0, "2", True])
def test_bad_threads_are_refused(name, threads):
    operator = OPERATORS[name]
    case = cases_of(operator)[0]
    with pytest.raises(KernelError, match="threads"):
        operator.function(*case.inputs, **case.options, threads=threads)
