"""SciPy's ``ndimage``, which uses one thread."""

from __future__ import annotations

import numpy as np

from peers import Peer, Run, Task, places

MODES = {
    "edge": "nearest",
    "zero": "grid-constant",
    "mirror": "mirror",
    "reflect": "reflect",
    "wrap": "grid-wrap",
}


def warp(task: Task) -> Run | None:
    from scipy import ndimage

    image, flow = task.inputs
    if image.dtype == np.float16:
        return None
    order, mode = task.options["order"], MODES[task.options["boundary"]]
    out = np.empty(image.shape, np.float32)

    def call() -> np.ndarray:
        at = places(flow)
        for n, channel in np.ndindex(image.shape[:2]):
            ndimage.map_coordinates(image[n, channel], at[n], output=out[n, channel], order=order, mode=mode)
        return out

    return Run(call, differs="cubic B-spline" if order == 3 else "")


def labels(task: Task) -> Run | None:
    from scipy import ndimage

    image, flow = task.inputs
    if task.options["method"] != "nearest":
        return None
    mode, out = MODES[task.options["boundary"]], np.empty_like(image)

    def call() -> np.ndarray:
        at = places(flow)
        for n, channel in np.ndindex(image.shape[:2]):
            ndimage.map_coordinates(image[n, channel], at[n], output=out[n, channel], order=0, mode=mode)
        return out

    return Run(call)


def points(task: Task) -> Run:
    from scipy import ndimage

    at, flow = task.inputs
    mode = MODES[task.options["boundary"]]

    def call() -> np.ndarray:
        moved = at.copy()
        for n, component in np.ndindex(flow.shape[:2]):
            where = at[n].T
            moved[n, :, component] += ndimage.map_coordinates(flow[n, component], where, order=1, mode=mode)
        return moved

    return Run(call)


def resample(task: Task) -> Run:
    """A Gaussian where there is one, then an affine map."""
    from scipy import ndimage

    (image,), options = task.inputs, task.options
    matrix, mode = options["matrix_vox"], MODES[options["boundary"]]
    steps = np.diag(matrix[:, :-1])  # of an image that is not turned
    sigmas = np.sqrt(np.maximum(steps**2 - 1, 0) / (8 * np.log(2))) if options["antialias"] else 0 * steps

    def call() -> np.ndarray:
        channel = image[0, 0]
        if sigmas.any():
            channel = ndimage.gaussian_filter(channel, sigmas, mode=mode, truncate=4)
        return ndimage.affine_transform(
            channel, steps, matrix[:, -1], options["shape"], order=options["order"], mode=mode
        )

    return Run(call, lambda result: result[None, None])


def gaussian(task: Task) -> Run:
    from scipy import ndimage

    image, options = task.inputs[0][0, 0], task.options
    mode, out = MODES[options["boundary"]], np.empty_like(image)
    return Run(
        lambda: ndimage.gaussian_filter(
            image, options["sigma"], mode=mode, truncate=options["truncate"], output=out
        ),
        lambda _: out[None, None],
    )


def guided(task: Task) -> Run:
    """As one would write it: six means by running sums."""
    from scipy import ndimage

    image, options = task.inputs[0][0, 0], task.options
    size, mode = 2 * options["radius"] + 1, MODES[options["boundary"]]

    def mean(array: np.ndarray) -> np.ndarray:
        return ndimage.uniform_filter(array, size, mode=mode)

    def call() -> np.ndarray:
        middle = mean(image)
        variance = mean(image * image) - middle * middle
        a = variance / (variance + np.float32(options["epsilon"]))
        return mean(a) * image + mean(middle - a * middle)

    return Run(call, lambda result: result[None, None])


def median(task: Task) -> Run | None:
    from scipy import ndimage

    (image,), options = task.inputs, task.options
    if image.dtype == np.float16 or image.shape[:2] != (1, 1):
        return None
    size, mode, out = 2 * options["radius"] + 1, MODES[options["boundary"]], np.empty_like(image)

    def call() -> np.ndarray:
        ndimage.median_filter(image[0, 0], size, mode=mode, output=out[0, 0])
        return out

    return Run(call)


PEERS = (
    Peer(
        "scipy ndimage",
        {"scipy": "scipy"},
        {
            "warp": warp,
            "warp_labels": labels,
            "warp_points": points,
            "resample": resample,
            "gaussian": gaussian,
            "guided_filter": guided,
            "median": median,
        },
        threads=False,
    ),
)
