"""The golden case: inputs and the results that they have to give, with which a device proves a network.

A bundle holds it where the machine that compiled could not run what it compiled. Arrays are ``.npy`` files of
version 1.0 in C order, numbered in the order of the contracts.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgekit.errors import CorruptError
from edgekit.reports import AccuracyLimits
from edgekit.spec import Array, TensorSpec

_FOLDERS = "golden/inputs/", "golden/results/"
_MAX_HEADER = 10_000


@dataclass(frozen=True)
class GoldenRecord:
    """What the manifest says of the golden case.

    Attributes:
        reference: What made the results: ``"pytorch"`` or ``"reference"``.
        inputs: Where the inputs come from: ``"given: scan.npy"`` or ``"generated: seed 0"``.
        limits: What every result has to keep.
    """

    reference: str
    inputs: str
    limits: AccuracyLimits = field(default_factory=AccuracyLimits)


@dataclass(frozen=True, eq=False)
class Golden:
    """The golden case.

    Attributes:
        record: What made it.
        inputs: One array for each input of the bundle, by name.
        results: One array for each result of the bundle, by name.
    """

    record: GoldenRecord
    inputs: Mapping[str, Array]
    results: Mapping[str, Array]

    def members(self, inputs: Sequence[TensorSpec], results: Sequence[TensorSpec]) -> dict[str, bytes]:
        """Its files, by the names that they have in a bundle with these contracts."""
        arrays = {**self.inputs, **self.results}
        return {name: _encode(arrays[spec.name]) for name, spec in contracts(inputs, results)}

    @classmethod
    def of_members(
        cls,
        record: GoldenRecord,
        files: Mapping[str, bytes],
        inputs: Sequence[TensorSpec],
        results: Sequence[TensorSpec],
    ) -> Golden:
        """The case that a bundle's files hold; its arrays cannot be written to.

        Raises:
            CorruptError: A file is not the array that its contract says.
        """
        arrays = {spec.name: decode(files[name], spec, name) for name, spec in contracts(inputs, results)}
        return cls(
            record,
            {spec.name: arrays[spec.name] for spec in inputs},
            {spec.name: arrays[spec.name] for spec in results},
        )


def contracts(
    inputs: Sequence[TensorSpec], results: Sequence[TensorSpec]
) -> Iterator[tuple[str, TensorSpec]]:
    """The name of each file of a golden case, and the contract of the array in it."""
    for folder, specs in zip(_FOLDERS, (inputs, results), strict=True):
        for number, spec in enumerate(specs):
            yield f"{folder}{number}.npy", spec


def decode(content: bytes, spec: TensorSpec, where: str) -> Array:
    """The array in a file, which holds nothing but an array of this contract.

    Raises:
        CorruptError: It does not.
    """
    stream = io.BytesIO(content)
    try:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("want version 1.0")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream, max_header_size=_MAX_HEADER)
    except ValueError as error:
        raise CorruptError(f"want an array (.npy, version 1.0): {error}", where=where) from None
    begin = stream.tell()
    # Sizes are compared before anything of that size is made.
    if dtype != spec.numpy_dtype or fortran or not spec.fits(shape):
        raise CorruptError(f"want {spec} in C order, got {dtype} {shape}", where=where)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if len(content) - begin != size:
        raise CorruptError(f"want {size} bytes of numbers, got {len(content) - begin}", where=where)
    return np.frombuffer(content, dtype, offset=begin).reshape(shape)


def _encode(array: Array) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return stream.getvalue()
