"""OpenCV, for images of two axes."""

from __future__ import annotations

from typing import Any

import numpy as np

from peers import Array, Peer, Run, Task, cubic, places


def _remap(task: Task) -> tuple[Any, dict[str, Any]] | None:
    """The image as OpenCV has it, and the options."""
    import cv2

    image = task.inputs[0]
    modes = {0: cv2.INTER_NEAREST, 1: cv2.INTER_LINEAR, 3: cv2.INTER_CUBIC}
    borders = {
        "edge": cv2.BORDER_REPLICATE,
        "zero": cv2.BORDER_CONSTANT,
        "mirror": cv2.BORDER_REFLECT_101,
        "reflect": cv2.BORDER_REFLECT,
        "wrap": cv2.BORDER_WRAP,
    }
    if image.ndim != 4 or image.shape[0] > 1 or image.dtype == np.float16:
        return None
    cv2.setNumThreads(task.threads)
    options = {
        "interpolation": modes[task.options["order"]],
        "borderMode": borders[task.options["boundary"]],
    }
    return np.ascontiguousarray(np.moveaxis(image[0], 0, -1)), options


def _view(result: Array) -> Array:
    return np.moveaxis(np.atleast_3d(result), -1, 0)[None]


def remap(task: Task) -> Run | None:
    """With the maps of places ready in memory."""
    import cv2

    if (ready := _remap(task)) is None:
        return None
    image, options = ready
    y, x = places(task.inputs[1])[0]
    out = np.empty_like(image)
    return Run(lambda: cv2.remap(image, x, y, dst=out, **options), _view, cubic(task))


def remap_displacement(task: Task) -> Run | None:
    """With the displacement added to the grid in every call, as edgekit does."""
    import cv2

    if (ready := _remap(task)) is None:
        return None
    image, options = ready
    flow, out = task.inputs[1][0], np.empty_like(image)
    grid = np.indices(flow.shape[1:], dtype=np.float32)
    at = np.empty_like(flow)

    def call() -> Array:
        cv2.add(grid[0], flow[0], dst=at[0])
        cv2.add(grid[1], flow[1], dst=at[1])
        return cv2.remap(image, at[1], at[0], dst=out, **options)

    return Run(call, _view, cubic(task))


def non_local_means(task: Task) -> Run | None:
    """Of bytes: floats it does not take."""
    import cv2

    image, options = task.inputs[0], task.options
    plain = (
        options.get("method", "pointwise") == "pointwise" and options.get("noise", "gaussian") == "gaussian"
    )
    if image.ndim != 4 or image.dtype != np.uint8 or not plain:
        return None
    cv2.setNumThreads(task.threads)
    sizes = (2 * options["patch_radius"] + 1, 2 * options["search_radius"] + 1)
    h = options.get("strength", 1.0) * options["sigma"]
    out = np.empty_like(image[0, 0])
    return Run(
        lambda: cv2.fastNlMeansDenoising(image[0, 0], out, h, *sizes),
        lambda result: result[None, None],
        "2 sigma^2 is not subtracted",
    )


def _plane(task: Task) -> Array | None:
    """The one image of two axes there is, and the number of threads set."""
    import cv2

    image = task.inputs[0]
    if image.ndim != 4 or image.shape[:2] != (1, 1) or task.options["boundary"] != "mirror":
        return None
    cv2.setNumThreads(task.threads)
    return image[0, 0]


def bilateral(task: Task) -> Run | None:
    import cv2

    if (image := _plane(task)) is None or task.options["radius"] is None:
        return None
    options, out = task.options, np.empty_like(image)
    arguments = (2 * options["radius"] + 1, options["sigma_range"], options["sigma_space"])
    return Run(lambda: cv2.bilateralFilter(image, *arguments, dst=out), lambda result: result[None, None])


def gaussian(task: Task) -> Run | None:
    import cv2

    if (image := _plane(task)) is None:
        return None
    sigma, out = task.options["sigma"], np.empty_like(image)
    size = 2 * int(task.options["truncate"] * sigma + 0.5) + 1
    return Run(
        lambda: cv2.GaussianBlur(image, (size, size), sigma, dst=out), lambda result: result[None, None]
    )


def median(task: Task) -> Run | None:
    """Floats it filters with windows of 3 x 3 and 5 x 5 only."""
    import cv2

    (image,), options = task.inputs, task.options
    size = 2 * options["radius"] + 1
    known = {"float32": 5, "int16": 5, "uint8": 255}.get(image.dtype.name, 0)
    if image.ndim != 4 or image.shape[:2] != (1, 1) or size > known or options["boundary"] != "edge":
        return None
    cv2.setNumThreads(task.threads)
    out = np.empty_like(image[0, 0])
    return Run(lambda: cv2.medianBlur(image[0, 0], size, dst=out), lambda found: found[None, None])


OPENCV = {"opencv-python-headless": "cv2"}
PEERS = (
    Peer("cv2.remap", OPENCV, {"warp": remap}),
    Peer("cv2.fastNlMeansDenoising", OPENCV, {"non_local_means": non_local_means}),
    Peer("cv2.add + cv2.remap", OPENCV, {"warp": remap_displacement}),
    Peer("cv2.bilateralFilter", OPENCV, {"bilateral": bilateral}),
    Peer("cv2.GaussianBlur", OPENCV, {"gaussian": gaussian}),
    Peer("cv2.medianBlur", OPENCV, {"median": median}),
)
