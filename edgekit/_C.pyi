import numpy as np
import numpy.typing as npt

def isas() -> list[str]: ...
def isa() -> str: ...
def warp(
    image: npt.NDArray[np.float32],
    flow: npt.NDArray[np.float32],
    out: npt.NDArray[np.float32],
    *,
    order: int = 1,
    boundary: str = "edge",
    add_image: bool = False,
    threads: int = 1,
    isa: str = "",
) -> None: ...
