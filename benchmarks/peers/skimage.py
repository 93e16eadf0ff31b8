"""scikit-image, which uses one thread."""

from __future__ import annotations

import numpy as np

from peers import Peer, Run, Task


def non_local_means(task: Task) -> Run | None:
    from skimage.restoration import denoise_nl_means

    image, options = task.inputs[0], task.options
    plain = (
        options.get("method", "pointwise") == "pointwise" and options.get("noise", "gaussian") == "gaussian"
    )
    if image.dtype != np.float32 or not plain:
        return None
    sigma = options["sigma"]

    def call() -> np.ndarray:
        return denoise_nl_means(
            image[0, 0],
            2 * options["patch_radius"] + 1,
            options["search_radius"],
            h=options.get("strength", 1.0) * sigma,
            sigma=sigma,
            fast_mode=True,
            preserve_range=True,
        )

    return Run(call, lambda out: out[None, None], "weights below exp(-5) are dropped")


def total_variation(task: Task) -> Run | None:
    from skimage.restoration import denoise_tv_chambolle

    (image,), options = task.inputs, task.options
    if options["method"] != "chambolle" or image.dtype.kind != "f":
        return None

    def call() -> np.ndarray:
        return denoise_tv_chambolle(
            image[0, 0], weight=options["weight"], eps=0, max_num_iter=options["iterations"]
        )

    return Run(call, lambda result: result[None, None])


PEERS = (
    Peer(
        "scikit-image",
        {"scikit-image": "skimage"},
        {"non_local_means": non_local_means, "total_variation": total_variation},
        threads=False,
    ),
)
