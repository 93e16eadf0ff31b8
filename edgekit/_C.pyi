import numpy as np
import numpy.typing as npt

def isas() -> list[str]: ...
def isa() -> str: ...
def gpu_missing() -> str: ...
def gpu_integrate_velocity(
    velocity: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    *,
    steps: int,
    boundary: str = "edge",
) -> None: ...
def warp(
    image: npt.NDArray[np.generic],
    flow: npt.NDArray[np.floating],
    out: npt.NDArray[np.generic],
    *,
    order: int = 1,
    boundary: str = "edge",
    add_flow: bool = False,
    scale: float = 1.0,
    threads: int = 1,
    isa: str = "",
) -> None: ...
def warp_adjoint(
    values: npt.NDArray[np.float32],
    flow: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    count: npt.NDArray[np.float32] | None = None,
    *,
    order: int = 1,
    boundary: str = "edge",
    threads: int = 1,
    isa: str = "",
) -> None: ...
def warp_gradient(
    cotangent: npt.NDArray[np.float32],
    image: npt.NDArray[np.float32],
    flow: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    *,
    order: int = 1,
    boundary: str = "edge",
    threads: int = 1,
    isa: str = "",
) -> None: ...
def invert(
    flow: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    residual: npt.NDArray[np.float32],
    *,
    iterations: int = 20,
    tolerance: float = 1e-3,
    boundary: str = "edge",
    threads: int = 1,
    isa: str = "",
) -> None: ...
def warp_labels(
    labels: npt.NDArray[np.generic],
    flow: npt.NDArray[np.float32],
    out: npt.NDArray[np.generic],
    *,
    linear: bool = False,
    boundary: str = "edge",
    threads: int = 1,
    isa: str = "",
) -> None: ...
def grid_sample(
    image: npt.NDArray[np.generic],
    grid: npt.NDArray[np.float32],
    out: npt.NDArray[np.generic],
    *,
    order: int = 1,
    padding: str = "zeros",
    align_corners: bool = False,
    cubic: float = -0.75,
    threads: int = 1,
    isa: str = "",
) -> None: ...
def sample_affine(
    image: npt.NDArray[np.generic],
    matrix: npt.NDArray[np.float64],
    out: npt.NDArray[np.generic],
    *,
    order: int = 1,
    boundary: str = "edge",
    threads: int = 1,
    isa: str = "",
) -> None: ...
def warp_points(
    points: npt.NDArray[np.float32],
    flow: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    *,
    boundary: str = "edge",
    threads: int = 1,
    isa: str = "",
) -> None: ...
def filter_axes(
    image: npt.NDArray[np.generic],
    out: npt.NDArray[np.generic],
    stages: list[
        tuple[
            int,
            npt.NDArray[np.int32],
            npt.NDArray[np.float32],
            npt.NDArray[np.int32],
            npt.NDArray[np.float32],
        ]
    ],
    *,
    threads: int = 1,
    isa: str = "",
) -> None: ...
def non_local_means(
    image: npt.NDArray[np.generic],
    out: npt.NDArray[np.generic],
    sigma: npt.NDArray[np.float32],
    mask: npt.NDArray[np.uint8] | None = None,
    *,
    patch_radius: int = 1,
    search_radius: int = 5,
    strength: float = 1.0,
    blockwise: bool = False,
    rician: bool = False,
    floor: float = 0.0,
    boundary: str = "mirror",
    threads: int = 1,
    isa: str = "",
) -> None: ...
def filter_axis(
    image: npt.NDArray[np.generic],
    out: npt.NDArray[np.generic],
    axis: int,
    base: npt.NDArray[np.int32],
    scale: npt.NDArray[np.float32],
    index: npt.NDArray[np.int32],
    weight: npt.NDArray[np.float32],
    *,
    threads: int = 1,
    isa: str = "",
) -> None: ...
def median(
    image: npt.NDArray[np.generic],
    out: npt.NDArray[np.generic],
    *,
    radius: int = 1,
    threads: int = 1,
    isa: str = "",
) -> None: ...
def bilateral(
    image: npt.NDArray[np.generic],
    out: npt.NDArray[np.generic],
    offsets: npt.NDArray[np.int32],
    weights: npt.NDArray[np.float32],
    guide: npt.NDArray[np.generic] | None = None,
    *,
    decay: float,
    boundary: str = "mirror",
    threads: int = 1,
    isa: str = "",
) -> None: ...
def total_variation(
    image: npt.NDArray[np.generic],
    out: npt.NDArray[np.generic],
    gap: npt.NDArray[np.float32] | None = None,
    *,
    weight: float,
    iterations: int,
    method: str = "chambolle",
    tolerance: float = -1.0,
    threads: int = 1,
    isa: str = "",
) -> None: ...
def anisotropic_diffusion(
    image: npt.NDArray[np.generic],
    out: npt.NDArray[np.generic],
    *,
    iterations: int,
    time_step: float,
    conductance: float,
    form: str = "gradient",
    interval: int = 1,
    threads: int = 1,
    isa: str = "",
) -> None: ...
def srad(
    image: npt.NDArray[np.generic],
    out: npt.NDArray[np.generic],
    start: npt.NDArray[np.float64] | None,
    region: npt.NDArray[np.int64] | None,
    *,
    iterations: int,
    time_step: float,
    decay: float,
    threads: int = 1,
    isa: str = "",
) -> None: ...
def gaussian(
    image: npt.NDArray[np.generic],
    out: npt.NDArray[np.generic],
    along_z: npt.NDArray[np.float32],
    along_y: npt.NDArray[np.float32],
    along_x: npt.NDArray[np.float32],
    *,
    boundary: str = "mirror",
    threads: int = 1,
    isa: str = "",
) -> None: ...
def guided_filter(
    image: npt.NDArray[np.generic],
    out: npt.NDArray[np.generic],
    guide: npt.NDArray[np.generic] | None = None,
    *,
    radius: int,
    epsilon: float,
    boundary: str = "mirror",
    threads: int = 1,
    isa: str = "",
) -> None: ...
