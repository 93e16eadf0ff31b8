"""edgekit's own operators on image grids, in voxels.

    moved = kernels.warp(image, flow_vox)                       # image[p + flow[p]]
    flow_vox = kernels.integrate_velocity(velocity_vox)         # scaling and squaring
    det = kernels.jacobian_determinant(flow_vox)                # of p -> p + flow[p]

Each operator has a meaning, a NumPy float64 reference, test cases, native variants and one for Numba,
registered in :data:`edgekit.kernels.base.OPERATORS`. Importing this package loads NumPy and nothing else; the
compiled extension is loaded at the first call, and :func:`native_status` says whether it could be. Where it
could not, Numba compiles the operators if it is installed, and otherwise their references run; a warning says
so. ``EDGEKIT_ISA`` in the environment asks for an instruction set, such as ``avx2``, or for ``numba``.
"""

from __future__ import annotations

from edgekit.kernels.adjoint import warp_adjoint
from edgekit.kernels.base import NativeStatus, native_status
from edgekit.kernels.compose import compose
from edgekit.kernels.denoise.bilateral import bilateral
from edgekit.kernels.denoise.diffusion import anisotropic_diffusion
from edgekit.kernels.denoise.gaussian import gaussian
from edgekit.kernels.denoise.guided import guided_filter
from edgekit.kernels.denoise.joint_bilateral import joint_bilateral
from edgekit.kernels.denoise.median import median
from edgekit.kernels.denoise.noise import estimate_noise
from edgekit.kernels.denoise.non_local_means import non_local_means
from edgekit.kernels.denoise.obnlm import obnlm
from edgekit.kernels.denoise.speckle import speckle_reduce
from edgekit.kernels.denoise.srad import srad
from edgekit.kernels.denoise.temporal import TemporalDenoiser, temporal_denoise
from edgekit.kernels.denoise.total_variation import total_variation
from edgekit.kernels.gradient import warp_gradient
from edgekit.kernels.grid_sample import grid_sample
from edgekit.kernels.integrate import integrate_velocity
from edgekit.kernels.inverse import invert
from edgekit.kernels.jacobian import folding_fraction, jacobian_determinant
from edgekit.kernels.labels import warp_labels
from edgekit.kernels.points import warp_points
from edgekit.kernels.resample import resample
from edgekit.kernels.warp import warp

__all__ = [
    "NativeStatus",
    "TemporalDenoiser",
    "anisotropic_diffusion",
    "bilateral",
    "compose",
    "estimate_noise",
    "folding_fraction",
    "gaussian",
    "grid_sample",
    "guided_filter",
    "integrate_velocity",
    "invert",
    "jacobian_determinant",
    "joint_bilateral",
    "median",
    "native_status",
    "non_local_means",
    "obnlm",
    "resample",
    "speckle_reduce",
    "srad",
    "temporal_denoise",
    "total_variation",
    "warp",
    "warp_adjoint",
    "warp_gradient",
    "warp_labels",
    "warp_points",
]
