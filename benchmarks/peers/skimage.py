"""scikit-image, which uses one thread."""

from __future__ import annotations

import numpy as np

from peers import Peer, Run, Task


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
        {"total_variation": total_variation},
        threads=False,
    ),
)
