"""What a tensor is: name, type, shape with ranges, layout, meaning and units.

A :class:`TensorSpec` is the contract at every boundary: of a model, of a compiled network, of a bundle.
:meth:`TensorSpec.check` is what stands between a caller's array and a vendor's library.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edgekit.errors import SpecError

DTYPES = ("float32", "float16", "float64", "int8", "uint8", "int16", "uint16", "int32", "int64", "bool")

# The default meaning of an image tensor's axes, by rank.
LAYOUTS = {1: "C", 2: "NC", 3: "NCW", 4: "NCHW", 5: "NCDHW"}

Array = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Dim:
    """A length that may vary: ``min``, ``min + step``, … up to ``max``. Written ``[min:max:step]``."""

    min: int
    max: int
    step: int = 1

    def __post_init__(self) -> None:
        if self.min < 1 or self.max < self.min or self.step < 1:
            raise SpecError(
                f"a range of lengths wants 1 <= min <= max and step >= 1, got {self}",
                hint="write it as [32:128:16]",
            )

    def __str__(self) -> str:
        return f"[{self.min}:{self.max}:{self.step}]" if self.step > 1 else f"[{self.min}:{self.max}]"

    def __contains__(self, length: int) -> bool:
        return self.min <= length <= self.max and (length - self.min) % self.step == 0

    @property
    def largest(self) -> int:
        """The largest length that is in the range."""
        return self.min + (self.max - self.min) // self.step * self.step

    def nearest(self, length: int) -> int:
        """The allowed length nearest to ``length``; the smaller of two equally near ones."""
        steps = math.ceil((length - self.min) / self.step - 0.5)
        return min(max(self.min, self.min + steps * self.step), self.largest)


@dataclass(frozen=True)
class TensorSpec:
    """The contract of one tensor.

    Axes of different tensors that have the same letter and the same range have the same length in one run.

    Attributes:
        name: Name in the model's interface.
        dtype: One of :data:`DTYPES`.
        dims: One length or :class:`Dim` an axis.
        layout: One letter an axis, from ``N C D H W``; empty where the axes are not an image's.
        quantity: What the numbers are: ``"intensity"``, ``"hounsfield"``, ``"label"``, ``"flow_vox"``, …
        value_range: Smallest and largest allowed value, or ``None`` for any finite one.
        spacing_mm_zyx: Distance of neighbouring voxels in mm, or ``None`` where it does not matter.
    """

    name: str
    dtype: str
    dims: tuple[int | Dim, ...]
    layout: str = ""
    quantity: str = ""
    value_range: tuple[float, float] | None = None
    spacing_mm_zyx: tuple[float, float, float] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SpecError(f"unknown dtype {self.dtype!r}: want one of {', '.join(DTYPES)}", where=self.name)
        if self.layout and len(self.layout) != len(self.dims):
            raise SpecError(
                f"layout {self.layout!r} names {len(self.layout)} axes, the shape has {len(self.dims)}",
                where=self.name,
            )
        for length in self.dims:
            if isinstance(length, int) and length < 1:
                raise SpecError(f"want lengths >= 1, got {format_dims(self.dims)}", where=self.name)
        if self.value_range is not None and not self.value_range[0] <= self.value_range[1]:
            raise SpecError(f"want a range from low to high, got {self.value_range}", where=self.name)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype} {format_dims(self.dims)}"

    @property
    def is_static(self) -> bool:
        """Whether every length is fixed."""
        return all(isinstance(length, int) for length in self.dims)

    @functools.cached_property
    def numpy_dtype(self) -> np.dtype[np.generic]:
        """NumPy's form of ``dtype``; comparing it costs a third of comparing the name."""
        return np.dtype(self.dtype)

    @property
    def largest_shape(self) -> tuple[int, ...]:
        """The shape with every length at its largest."""
        return tuple(d.largest if isinstance(d, Dim) else d for d in self.dims)

    @property
    def smallest_shape(self) -> tuple[int, ...]:
        """The shape with every length at its smallest."""
        return tuple(d.min if isinstance(d, Dim) else d for d in self.dims)

    @property
    def largest_bytes(self) -> int:
        """Bytes of the largest allowed array."""
        return math.prod(self.largest_shape) * np.dtype(self.dtype).itemsize

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape is allowed."""
        if shape == self.dims:  # the usual case, at a tenth of the cost
            return True
        return len(shape) == len(self.dims) and all(
            length in d if isinstance(d, Dim) else length == d
            for length, d in zip(shape, self.dims, strict=True)
        )

    def check(self, array: object) -> Array:
        """Return ``array`` as a C-contiguous array, or refuse it.

        Only memory layout is changed (a copy of a non-contiguous array); type and values never are.

        Raises:
            SpecError: not an array, another dtype, a shape outside the contract, NaN or infinity, or a
                value outside ``value_range``.
        """
        if not (isinstance(array, np.ndarray) and array.dtype == self.numpy_dtype and self.fits(array.shape)):
            raise self._misfit(array)
        array = np.ascontiguousarray(array)
        self.check_values(array)
        return array

    def check_values(self, array: Array) -> None:
        """Refuse NaN, infinity and values outside ``value_range``; type and shape are not looked at."""
        if self.value_range is None:
            if not all_finite(array):
                raise self._not_finite(array)
            return
        low, high = float(array.min()), float(array.max())
        if self.value_range[0] <= low and high <= self.value_range[1]:
            return  # NaN would have made one of the comparisons false
        if not all_finite(array):
            raise self._not_finite(array)
        raise SpecError(
            f"values out of range: want {self.value_range[0]:g} … {self.value_range[1]:g}, "
            f"got {low:g} … {high:g}",
            where=f"tensor {self.name!r}",
            hint="check the unit and the rescale slope of the image",
        )

    def _misfit(self, array: object) -> SpecError:
        where = f"tensor {self.name!r}"
        if not isinstance(array, np.ndarray):
            return SpecError(
                f"want a NumPy array, got {type(array).__name__}", where=where, hint="numpy.asarray(…)"
            )
        if array.dtype != self.dtype:
            return SpecError(
                f"wrong dtype: want {self.dtype}, got {array.dtype}",
                where=where,
                hint=f"array.astype(numpy.{self.dtype})",
            )
        return SpecError(
            f"wrong shape: want {format_dims(self.dims)}{f' ({self.layout})' if self.layout else ''}, "
            f"got {format_dims(array.shape)}",
            where=where,
            hint=self._shape_hint(array.shape),
        )

    def _not_finite(self, array: Array) -> SpecError:
        bad = int(np.size(array) - np.count_nonzero(np.isfinite(array)))
        return SpecError(
            f"want finite values, got {bad} NaN or infinite of {np.size(array)}",
            where=f"tensor {self.name!r}",
            hint="numpy.nan_to_num(array) if 0 is right for missing values",
        )

    def _shape_hint(self, shape: Sequence[int]) -> str:
        if len(shape) != len(self.dims):
            if len(shape) == len(self.dims) - 2 and self.layout[:2] == "NC":
                return "array[None, None] adds the batch and channel axes"
            return f"want {len(self.dims)} axes, got {len(shape)}"
        near = tuple(
            d.nearest(length) if isinstance(d, Dim) else d for length, d in zip(shape, self.dims, strict=True)
        )
        return f"the nearest allowed shape is {format_dims(near)}: crop or pad to it"


@dataclass(frozen=True)
class Step:
    """One operation that the bundle's runtime does before or after the network, as data.

    Attributes:
        op: Name in :data:`edgekit.steps.STEPS`.
        inputs: Names of the tensors it reads: of the model's inputs, the network's outputs or earlier steps.
        outputs: Names of the tensors it makes. A step before the network may name one that is there already:
            what it makes takes that one's place.
        options: Plain values by name; the step's own defaults fill the rest.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    options: dict[str, int | float | str | bool] = field(default_factory=dict)

    def __str__(self) -> str:
        options = "".join(f", {key}={value!r}" for key, value in self.options.items())
        return f"{', '.join(self.outputs)} = {self.op}({', '.join(self.inputs)}{options})"


# Up to this many elements the cost of a call counts, not that of an element.
_FEW = 1 << 16


def all_finite(array: Array) -> bool:
    """Whether no element is NaN or infinite. No temporary array, thread or warning in the usual case."""
    if array.size <= _FEW:
        # Both point at a NaN where there is one. Between two runs of a network, when no cache holds anything
        # of this, they take half the time of a reduction.
        spread = array.item(array.argmax()) - array.item(array.argmin())
    elif array.dtype.kind == "f":
        # The sum of a NaN or an infinity with anything is not finite. This is the fastest sum of NumPy's.
        spread = float(np.einsum("i->", array.reshape(-1)))  # type: ignore[arg-type]
    else:
        return True
    # A finite overflow makes the second look decide.
    return math.isfinite(spread) or bool(np.isfinite(array).all())


def format_dims(dims: Sequence[int | Dim]) -> str:
    """``1x1x[32:128:16]x96``, or ``scalar`` for no axes."""
    return "x".join(map(str, dims)) or "scalar"


_DIM = re.compile(r"(?P<fixed>\d+)|\[(?P<min>\d+):(?P<max>\d+)(?::(?P<step>\d+))?\]")


def parse_dims(text: str) -> tuple[int | Dim, ...]:
    """Read ``1x1x[32:128:16]x96``.

    Raises:
        SpecError: The text is not of this form, or a length is not positive.
    """
    dims: list[int | Dim] = []
    for part in re.split(r"x(?![^\[]*\])", text):
        match = _DIM.fullmatch(part.strip())
        if match is None or len(part) > 64:
            raise SpecError(
                f"cannot read the shape {text[:80]!r}: {part[:40]!r} is no length and no range",
                hint="write shapes as 1x1x96x96x96 or, with ranges, 1x1x[32:128:16]x96",
            )
        if match["fixed"]:
            dims.append(int(match["fixed"]))
        else:
            dims.append(Dim(int(match["min"]), int(match["max"]), int(match["step"] or 1)))
    if any(isinstance(d, int) and d < 1 for d in dims):
        raise SpecError(f"want lengths >= 1, got {text!r}")
    return tuple(dims)


def with_dims(spec: TensorSpec, dims: tuple[int | Dim, ...]) -> TensorSpec:
    """The same tensor with other lengths; the layout is kept or set from the rank."""
    return replace(
        spec, dims=dims, layout=spec.layout if len(spec.layout) == len(dims) else LAYOUTS.get(len(dims), "")
    )
