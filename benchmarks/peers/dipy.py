"""DIPY's vector fields, which use one thread and have the components last, and its non-local means."""

from __future__ import annotations

import numpy as np

from peers import Array, Peer, Prepare, Run, Task

OUTSIDE = "whatever lies outside the grid is 0"


def _last(flow: Array) -> Array:
    return np.ascontiguousarray(np.moveaxis(flow[0], 0, -1))


def _first(field: Array) -> Array:
    return np.moveaxis(np.asarray(field), -1, 0)[None]


def warp(task: Task) -> Run | None:
    from dipy.align import vector_fields

    image, flow = task.inputs
    if image.shape[:2] != (1, 1) or image.dtype != np.float32 or task.options["order"] == 3:
        return None
    name = f"warp_{flow.shape[1]}d" + ("_nn" if task.options["order"] == 0 else "")
    function, field = getattr(vector_fields, name), _last(flow)
    return Run(lambda: function(image[0, 0], field), lambda out: np.asarray(out)[None, None], OUTSIDE)


def compose(task: Task) -> Run:
    from dipy.align import vector_fields

    first, second = (_last(flow) for flow in task.inputs)
    function = getattr(vector_fields, f"compose_vector_fields_{first.shape[-1]}d")
    out = np.empty_like(first)
    return Run(
        lambda: function(first, second, None, None, 1.0, out), lambda results: _first(results[0]), OUTSIDE
    )


def invert(task: Task) -> Run:
    from dipy.align import vector_fields

    field, options = _last(task.inputs[0]), task.options
    dims = field.shape[-1]
    function = getattr(vector_fields, f"invert_vector_field_fixed_point_{dims}d")
    settings = (np.eye(dims + 1), np.ones(dims), options["iterations"], options["tolerance_vox"])
    return Run(
        lambda: function(field, *settings), _first, "damped steps of the whole field; stops by its mean error"
    )


def non_local_means(method: str) -> Prepare:
    def prepare(task: Task) -> Run | None:
        from dipy.denoise.nlmeans import nlmeans

        image, options = task.inputs[0], task.options
        if image.ndim != 5 or image.dtype != np.float32:
            return None
        settings = {
            "patch_radius": options["patch_radius"],
            "block_radius": options["search_radius"],
            "rician": options.get("noise") == "rician",
            "num_threads": task.threads,
            "method": method,
        }

        def call() -> Array:
            return nlmeans(image[0, 0], options["sigma"], **settings)

        return Run(
            call, lambda out: np.asarray(out)[None, None], "weights of its own; ends are left as they are"
        )

    return prepare


PEERS = (
    Peer(
        "DIPY vector_fields",
        {"dipy": "dipy"},
        {"warp": warp, "compose": compose, "invert": invert},
        threads=False,
    ),
    *(
        Peer(f"DIPY nlmeans {method}", {"dipy": "dipy"}, {"non_local_means": non_local_means(method)})
        for method in ("blockwise", "classic")
    ),
)
