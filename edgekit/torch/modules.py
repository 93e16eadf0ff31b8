"""Drop-in modules: VoxelMorph's SpatialTransformer and VecInt, MONAI's Warp and DVF2DDF.

They are made and called like the originals (``voxelmorph.torch.layers``, ``monai.networks.blocks``), give the
same outputs and gradients up to rounding, and fit the same state dictionaries. Displacements are in voxels,
components in axis order, in both libraries as here. An exporter sees one node per module.

What differs. Halfway between two voxels nearest-neighbour sampling takes the higher index, not the even one,
and where a coordinate is whole, which includes a displacement of 0, linear interpolation has a kink: the
gradient is that of the cell on the side of the higher index, while the originals pass coordinates through
[-1, 1], where rounding decides. Bicubic sampling is refused. Tensors of two floating-point types are computed
in the wider one, and narrow ones in float32 while autocast is on. Errors are of
:class:`edgekit.errors.KernelError`, which is a ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import KernelError
from edgekit.kernels.checks import check_integer
from edgekit.kernels.integrate import MAX_STEPS
from edgekit.torch.operators import integrate_velocity, warp

__all__ = ["DVF2DDF", "SpatialTransformer", "VecInt", "Warp"]

_ORDERS: Mapping[str | int, int] = {"bilinear": 1, "nearest": 0}
_MONAI_ORDERS: Mapping[str | int, int] = {**_ORDERS, 0: 0, 1: 1}
# By name those of torch's grid_sample with align_corners=True, by number those of MONAI's compiled grid_pull.
_MONAI_BOUNDARIES: Mapping[str | int, str] = {
    "zeros": "zero",
    "border": "edge",
    "reflection": "mirror",
    0: "edge",
    1: "mirror",
    2: "reflect",
    5: "wrap",
    7: "zero",
}


class _OnGrid(nn.Module):
    """A module for displacements on one grid, (D, H, W) or (H, W)."""

    # Under what name the original keeps its grid of coordinates in its state dictionary.
    _grid_name = "grid"

    def __init__(self, size: Sequence[int]) -> None:
        super().__init__()
        self.size = tuple(int(length) for length in size)
        if len(self.size) not in (2, 3) or min(self.size) < 1:
            raise KernelError(f"size: want (D, H, W) or (H, W), got {self.size}", where=type(self).__name__)

    def _check(self, flow: Tensor) -> None:
        if tuple(flow.shape[2:]) != self.size:
            raise KernelError(
                f"want a displacement on the grid {self.size} that the module was made for, "
                f"got {tuple(flow.shape)}",
                where=type(self).__name__,
            )

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, metadata: Any, strict: bool, *rest: Any
    ) -> None:
        key = prefix + self._grid_name
        grid = state_dict.pop(key, None)
        super()._load_from_state_dict(state_dict, prefix, metadata, strict, *rest)
        if grid is not None and tuple(grid.shape[2:]) != self.size:
            errors: list[str] = rest[-1]
            errors.append(f"{key}: want the grid {self.size}, got {tuple(grid.shape[2:])}")


class SpatialTransformer(_OnGrid):
    """Warp an image by a displacement; outside it is zero. VoxelMorph's layer of that name.

    The original keeps a grid of coordinates in its state dictionary. Here there is none: a saved one is
    accepted, if it has the right size, and dropped.

    Args:
        size: The grid, (D, H, W) or (H, W).
        mode: ``"bilinear"``, in 3-D too, or ``"nearest"``.

    Raises:
        KernelError: The size or the mode is none of these.
    """

    def __init__(self, size: Sequence[int], mode: str = "bilinear") -> None:
        super().__init__(size)
        self.mode = mode
        self._order = _choose(mode, "mode", _ORDERS, "SpatialTransformer")

    def forward(self, src: Tensor, flow: Tensor) -> Tensor:
        """``src[p + flow[p]]``.

        Args:
            src: [N, C, *size].
            flow: [N, dims, *size] in voxels.

        Returns:
            The warped image, shaped like ``src``. Differentiable in both.

        Raises:
            KernelError: The shapes are others.
        """
        self._check(flow)
        src, flow = _alike(src, flow)
        return warp(src, flow, order=self._order, boundary="zero")


class VecInt(_OnGrid):
    """Integrate a velocity by scaling and squaring; outside it is zero. VoxelMorph's layer of that name.

    Args:
        inshape: The grid, (D, H, W) or (H, W).
        nsteps: Number of compositions, 0 to 32.

    Raises:
        KernelError: The grid or the number of steps is none of these.
    """

    _grid_name = "transformer.grid"

    def __init__(self, inshape: Sequence[int], nsteps: int) -> None:
        super().__init__(inshape)
        self.nsteps = check_integer(nsteps, "nsteps", 0, MAX_STEPS, where="VecInt")

    def forward(self, vec: Tensor) -> Tensor:
        """The displacement after unit time.

        Args:
            vec: [N, dims, *inshape], voxels per unit time.

        Returns:
            The displacement in voxels, shaped like ``vec``. Differentiable.

        Raises:
            KernelError: The shape is another.
        """
        self._check(vec)
        (vec,) = _alike(vec)
        return integrate_velocity(vec, steps=self.nsteps, boundary="zero")


class Warp(nn.Module):
    """Warp an image by a displacement. MONAI's block of that name.

    Along an axis of one voxel a displacement does nothing, as in MONAI.

    Args:
        mode: ``"bilinear"``, in 3-D too, or ``"nearest"``; or 1 or 0, as MONAI's compiled extension has it.
        padding_mode: ``"zeros"``, ``"border"`` or ``"reflection"``, which is about the outermost voxels'
            centres; or 0, 1, 2, 5 or 7, as the compiled extension has it.
        jitter: Whether to displace every voxel by further 0 to 1 voxels, random but the same at each call.

    Raises:
        KernelError: A mode is none of these.
    """

    def __init__(
        self, mode: str | int = "bilinear", padding_mode: str | int = "border", jitter: bool = False
    ) -> None:
        super().__init__()
        self.jitter = jitter
        self._order = _choose(mode, "mode", _MONAI_ORDERS, "Warp")
        self._boundary = _choose(padding_mode, "padding_mode", _MONAI_BOUNDARIES, "Warp")

    def forward(self, image: Tensor, ddf: Tensor) -> Tensor:
        """``image[p + ddf[p]]``.

        Args:
            image: [N, C, D, H, W] or [N, C, H, W].
            ddf: [N, 3, D, H, W] or [N, 2, H, W] in voxels.

        Returns:
            The warped image, shaped like ``image``. Differentiable in both.

        Raises:
            KernelError: The shapes are others.
        """
        image, ddf = _alike(image, ddf)
        if self.jitter:
            random = torch.Generator(ddf.device).manual_seed(0)
            ddf = ddf + torch.rand(ddf.shape, generator=random, dtype=ddf.dtype, device=ddf.device)
        if 1 in ddf.shape[2:]:
            counts = [float(size > 1) for size in ddf.shape[2:]]
            ddf = ddf * ddf.new_tensor(counts).reshape(-1, *(1 for _ in counts))
        return warp(image, ddf, order=self._order, boundary=self._boundary)

    def integrate(self, velocity: Tensor, steps: int) -> Tensor:
        """Scaling and squaring with this warp, in one operator where that is the same."""
        (ddf,) = _alike(velocity)
        if self._order == 1 and not self.jitter and 1 not in ddf.shape[2:]:
            return integrate_velocity(ddf, steps=steps, boundary=self._boundary)
        ddf = ddf / 2.0**steps
        for _ in range(steps):
            ddf = ddf + self(ddf, ddf)
        return ddf


class DVF2DDF(nn.Module):
    """Integrate a velocity by scaling and squaring. MONAI's block of that name.

    Args:
        num_steps: Number of compositions, 1 to 32.
        mode: As in :class:`Warp`.
        padding_mode: As in :class:`Warp`.

    Raises:
        KernelError: The number of steps or a mode is none of these.
    """

    def __init__(
        self, num_steps: int = 7, mode: str | int = "bilinear", padding_mode: str | int = "zeros"
    ) -> None:
        super().__init__()
        self.num_steps = check_integer(num_steps, "num_steps", 1, MAX_STEPS, where="DVF2DDF")
        self.warp_layer = Warp(mode=mode, padding_mode=padding_mode)

    def forward(self, dvf: Tensor) -> Tensor:
        """The displacement after unit time.

        Args:
            dvf: [N, 3, D, H, W] or [N, 2, H, W], voxels per unit time.

        Returns:
            The displacement in voxels, shaped like ``dvf``. Differentiable.

        Raises:
            KernelError: The shape is another.
        """
        return self.warp_layer.integrate(dvf, self.num_steps)


def _choose(value: object, name: str, choices: Mapping[Any, Any], where: str) -> Any:
    """The entry for a name or number, or for the member of an enumeration of them."""
    key = getattr(value, "value", value)
    if key not in choices or isinstance(key, bool):
        raise KernelError(f"{name}: want one of {', '.join(map(repr, choices))}, got {key!r}", where=where)
    return choices[key]


def _alike(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Floating-point tensors in the widest type among them; under autocast at least float32."""
    if not all(tensor.is_floating_point() for tensor in tensors):
        return tensors
    widest = tensors[0].dtype
    for tensor in tensors[1:]:
        widest = torch.promote_types(widest, tensor.dtype)
    if torch.is_autocast_enabled(tensors[0].device.type):
        widest = torch.promote_types(widest, torch.float32)
    return tuple(tensor.to(widest) for tensor in tensors)
