"""ITK's filters through SimpleITK, on images that are already its own."""

from __future__ import annotations

from typing import Any

import numpy as np

from peers import Array, Peer, Run, Task

OUTSIDE = "0 beyond half a voxel outside the grid, the edge value before"
BORDER = "derivatives at the border are halved"


def _field(flow: Array) -> Any:
    """A field as ITK has it: components (x, y, z), last."""
    import SimpleITK as sitk

    return sitk.GetImageFromArray(np.ascontiguousarray(np.moveaxis(flow, 0, -1)[..., ::-1]), isVector=True)


def _flow(field: Any) -> Array:
    import SimpleITK as sitk

    return np.moveaxis(sitk.GetArrayFromImage(field)[..., ::-1], -1, 0)[None].astype(np.float32)


def _threads(image_filter: Any, task: Task) -> Any:
    image_filter.SetNumberOfThreads(task.threads)
    image_filter.SetNumberOfWorkUnits(task.threads)
    return image_filter


def _warp(task: Task, images: list[Any], order: int) -> Run:
    import SimpleITK as sitk

    field = _field(task.inputs[1][0])
    warper = _threads(sitk.WarpImageFilter(), task)
    warper.SetInterpolator({0: sitk.sitkNearestNeighbor, 1: sitk.sitkLinear, 3: sitk.sitkBSpline}[order])
    warper.SetOutputParameteresFromImage(images[0])
    differs = OUTSIDE + ("; cubic B-spline" if order == 3 else "")
    return Run(
        lambda: [warper.Execute(image, field) for image in images],
        lambda results: np.stack([sitk.GetArrayFromImage(result) for result in results])[None],
        differs,
    )


def warp(task: Task) -> Run | None:
    import SimpleITK as sitk

    image = task.inputs[0]
    if image.dtype == np.float16 or len(image) > 1:
        return None
    images = [sitk.GetImageFromArray(np.ascontiguousarray(channel)) for channel in image[0]]
    return _warp(task, images, task.options["order"])


def labels(task: Task) -> Run | None:
    import SimpleITK as sitk

    if task.options["method"] != "nearest":
        return None
    return _warp(task, [sitk.GetImageFromArray(channel) for channel in task.inputs[0][0]], order=0)


def compose(task: Task) -> Run:
    import SimpleITK as sitk

    first, second = (_field(flow[0]) for flow in task.inputs)
    warper = _threads(sitk.WarpImageFilter(), task)
    warper.SetInterpolator(sitk.sitkLinear)
    warper.SetOutputParameteresFromImage(second)
    return Run(lambda: sitk.Add(first, warper.Execute(second, first)), _flow, OUTSIDE)


def invert(task: Task) -> Run:
    import SimpleITK as sitk

    field = _field(task.inputs[0][0])
    inverter = _threads(sitk.InvertDisplacementFieldImageFilter(), task)
    inverter.SetMaximumNumberOfIterations(task.options["iterations"])
    inverter.SetMaxErrorToleranceThreshold(task.options["tolerance_vox"])
    inverter.SetMeanErrorToleranceThreshold(task.options["tolerance_vox"])
    return Run(
        lambda: inverter.Execute(field), _flow, "damped steps of the whole field; stops by its mean error"
    )


def resample(task: Task) -> Run | None:
    import SimpleITK as sitk

    (image,), options = task.inputs, task.options
    steps, offset = np.diag(options["matrix_vox"][:, :-1]), options["matrix_vox"][:, -1]
    source = sitk.GetImageFromArray(image[0, 0])
    sampler = _threads(sitk.ResampleImageFilter(), task)
    sampler.SetInterpolator(sitk.sitkLinear)
    sampler.SetSize(options["shape"][::-1])
    sampler.SetOutputSpacing(steps[::-1].tolist())
    sampler.SetOutputOrigin(offset[::-1].tolist())
    sampler.SetUseNearestNeighborExtrapolator(True)
    smooth = None
    if options["antialias"] and steps.max() > 1:
        smooth = _threads(sitk.SmoothingRecursiveGaussianImageFilter(), task)
        smooth.SetSigma(np.sqrt((steps**2 - 1) / (8 * np.log(2)))[::-1].tolist())
    return Run(
        lambda: sampler.Execute(smooth.Execute(source) if smooth else source),
        lambda result: sitk.GetArrayFromImage(result)[None, None],
        "recursive Gaussian" if smooth else "",
    )


def jacobian(task: Task) -> Run:
    import SimpleITK as sitk

    field = _field(task.inputs[0][0])
    jacobian_filter = _threads(sitk.DisplacementFieldJacobianDeterminantFilter(), task)
    return Run(
        lambda: jacobian_filter.Execute(field), lambda image: sitk.GetArrayFromImage(image)[None], BORDER
    )


def diffusion(task: Task) -> Run:
    import SimpleITK as sitk

    (image,), options = task.inputs, task.options
    source = sitk.GetImageFromArray(image[0, 0])
    form = options["form"].capitalize()
    smoother = _threads(getattr(sitk, f"{form}AnisotropicDiffusionImageFilter")(), task)
    smoother.SetTimeStep(options["time_step"])
    smoother.SetConductanceParameter(options["conductance"])
    smoother.SetConductanceScalingUpdateInterval(options["conductance_scaling_update_interval"])
    smoother.SetNumberOfIterations(options["iterations"])
    return Run(lambda: smoother.Execute(source), lambda result: sitk.GetArrayFromImage(result)[None, None])


def bilateral(task: Task) -> Run | None:
    import SimpleITK as sitk

    image, options = task.inputs[0][0, 0], task.options
    if image.dtype != np.float32 or options["radius"] is None:
        return None
    source = sitk.GetImageFromArray(image)
    smooth = _threads(sitk.BilateralImageFilter(), task)
    smooth.SetDomainSigma(options["sigma_space"])
    smooth.SetRangeSigma(options["sigma_range"])
    return Run(
        lambda: smooth.Execute(source),
        lambda result: sitk.GetArrayFromImage(result)[None, None],
        "a box for a window; weights from a table; edge values outside",
    )


def gaussian(task: Task) -> Run | None:
    import SimpleITK as sitk

    image, sigma = task.inputs[0][0, 0], task.options["sigma"]
    source = sitk.GetImageFromArray(image)
    smooth = _threads(sitk.SmoothingRecursiveGaussianImageFilter(), task)
    smooth.SetSigma(sigma)
    return Run(
        lambda: smooth.Execute(source),
        lambda result: sitk.GetArrayFromImage(result)[None, None],
        "recursive; edge values outside",
    )


def median(task: Task) -> Run | None:
    import SimpleITK as sitk

    (image,), options = task.inputs, task.options
    if image.dtype == np.float16 or image.shape[:2] != (1, 1) or options["boundary"] != "edge":
        return None
    source = sitk.GetImageFromArray(image[0, 0])
    median_filter = _threads(sitk.MedianImageFilter(), task)
    median_filter.SetRadius(options["radius"])
    return Run(lambda: median_filter.Execute(source), lambda found: sitk.GetArrayFromImage(found)[None, None])


PEERS = (
    Peer(
        "SimpleITK",
        {"simpleitk": "SimpleITK"},
        {
            "warp": warp,
            "warp_labels": labels,
            "resample": resample,
            "compose": compose,
            "invert": invert,
            "jacobian_determinant": jacobian,
            "anisotropic_diffusion": diffusion,
            "bilateral": bilateral,
            "gaussian": gaussian,
            "median": median,
        },
    ),
)
