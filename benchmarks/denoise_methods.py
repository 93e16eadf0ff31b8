"""The methods that bench_denoise.py compares, with the parameters they may choose from."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from denoise_images import Noisy

from edgekit import kernels

Array = np.ndarray
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """A way to take noise away.

    Attributes:
        name: As tables show it; edgekit's own begin with "edgekit".
        run: ``run(noisy, **options)``, with one thread.
        strengths: Parameters that change the result more than the time: the best of them is found.
        efforts: Parameters that change the time: one row of the table for each.
        ndims: What it can filter.
        noises: What it is meant for.
        package: What must be installed.
    """

    name: str
    run: Callable[..., Array]
    strengths: Mapping[str, tuple[Any, ...]]
    efforts: tuple[Options, ...] = ({},)
    ndims: tuple[int, ...] = (2, 3)
    noises: tuple[str, ...] = ("gaussian", "rician", "speckle")
    package: str = "edgekit"

    def missing(self) -> bool:
        return importlib.util.find_spec(self.package) is None

    def suits(self, noisy: Noisy) -> bool:
        return noisy.image.ndim in self.ndims and noisy.noise in self.noises

    def choices(self) -> Iterator[Options]:
        for values in itertools.product(*self.strengths.values()):
            yield dict(zip(self.strengths, values, strict=True))


@dataclass(frozen=True)
class Unit:
    """An image in the range 0 to 255, for those who know no other."""

    scale: float = field(init=False)
    noisy: Noisy

    def __post_init__(self) -> None:
        object.__setattr__(self, "scale", 255 / float(self.noisy.image.max()))

    @property
    def bytes(self) -> Array:
        return np.clip(np.rint(self.noisy.image * self.scale), 0, 255).astype(np.uint8)

    def back(self, result: Array) -> Array:
        return result.astype(np.float32) / np.float32(self.scale)


# Standard deviations and weights are chosen as multiples of the noise, which every method is told.
_TIMES = (0.4, 0.6, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5)


def _non_local_means(noisy: Noisy, *, strength: float, search: int, patch: int, method: str) -> Array:
    return kernels.non_local_means(
        noisy.image,
        sigma=noisy.sigma,
        strength=strength,
        search_radius=search,
        patch_radius=patch,
        method=method,
        noise="rician" if noisy.noise == "rician" else "gaussian",
        threads=1,
    )


def _total_variation(noisy: Noisy, *, weight: float, iterations: int) -> Array:
    return kernels.total_variation(noisy.image, weight=weight * noisy.sigma, iterations=iterations, threads=1)


def _bilateral(noisy: Noisy, *, space: float, range_: float, radius: int) -> Array:
    return kernels.bilateral(
        noisy.image, sigma_space=space, sigma_range=range_ * noisy.sigma, radius=radius, threads=1
    )


def _guided(noisy: Noisy, *, epsilon: float, radius: int) -> Array:
    return kernels.guided_filter(noisy.image, radius=radius, epsilon=epsilon * noisy.sigma**2, threads=1)


def _gaussian(noisy: Noisy, *, sigma: float) -> Array:
    return kernels.gaussian(noisy.image, sigma=sigma, threads=1)


def _median(noisy: Noisy, *, radius: int) -> Array:
    return kernels.median(noisy.image, radius=radius, threads=1)


def _diffusion(noisy: Noisy, *, conductance: float, iterations: int, form: str) -> Array:
    return kernels.anisotropic_diffusion(
        noisy.image,
        iterations=iterations,
        time_step=_time_step(noisy),
        conductance=conductance,
        form=form,
        threads=1,
    )


def _time_step(noisy: Noisy) -> float:
    """The largest stable one of ITK's diffusion."""
    return 1 / 2 ** (noisy.image.ndim + 1)


def _obnlm(noisy: Noisy, *, strength: float, search: int, patch: int) -> Array:
    level = float(noisy.clean.mean())
    return kernels.obnlm(
        noisy.image,
        sigma=noisy.sigma / np.sqrt(level),  # of what the root of the intensity is multiplied by
        strength=strength,
        search_radius=search,
        patch_radius=patch,
        floor=level / 50,
        threads=1,
    )


def _srad(noisy: Noisy, *, decay: float, iterations: int) -> Array:
    return kernels.srad(np.maximum(noisy.image, 0), iterations=iterations, decay=decay, threads=1)


def _search(*radii: int, method: str, patches: tuple[int, ...] = (1, 2)) -> tuple[Options, ...]:
    return tuple(
        {"search": search, "patch": patch, "method": method} for patch in patches for search in radii
    )


OURS = (
    Method(
        "edgekit non-local means",
        _non_local_means,
        {"strength": _TIMES},
        _search(2, 3, 5, 8, method="pointwise"),
        ndims=(2,),
    ),
    Method(
        "edgekit non-local means, volume",
        _non_local_means,
        {"strength": _TIMES},
        _search(1, 2, 3, method="pointwise", patches=(1,)),
        ndims=(3,),
    ),
    Method(
        "edgekit non-local means, blocks",
        _non_local_means,
        {"strength": _TIMES},
        _search(2, 3, 5, method="blockwise", patches=(1,)),
    ),
    Method(
        "edgekit total variation",
        _total_variation,
        {"weight": (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)},
        tuple({"iterations": n} for n in (5, 10, 20, 50, 100)),
    ),
    Method(
        "edgekit bilateral",
        _bilateral,
        {"space": (0.8, 1.2, 1.8, 2.5), "range_": (1.5, 2.0, 2.5, 3.0, 4.0, 6.0)},
        tuple({"radius": r} for r in (1, 2, 3, 4)),
    ),
    Method(
        "edgekit guided filter",
        _guided,
        {"epsilon": (0.5, 1.0, 2.0, 4.0)},
        tuple({"radius": r} for r in (1, 2, 3)),
    ),
    Method("edgekit Gaussian", _gaussian, {"sigma": (0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3)}),
    Method("edgekit median", _median, {}, tuple({"radius": r} for r in (1, 2))),
    Method(
        "edgekit speckle, blocks",
        _obnlm,
        {"strength": _TIMES},
        tuple({"search": s, "patch": 1} for s in (2, 3, 5)),
        noises=("speckle",),
    ),
    Method(
        "edgekit speckle, diffusion",
        _srad,
        {"decay": (0.02, 1 / 6, 0.5)},
        tuple({"iterations": n} for n in (3, 5, 10, 20)),
        noises=("speckle",),
    ),
    *(
        Method(
            f"edgekit diffusion, {form}",
            _diffusion,
            {"conductance": (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)},
            tuple({"iterations": n, "form": form} for n in (3, 5, 10)),
        )
        for form in ("gradient", "curvature")
    ),
)


def _cv2_non_local_means(noisy: Noisy, *, strength: float, search: int, patch: int) -> Array:
    import cv2

    unit = Unit(noisy)
    h = strength * noisy.sigma * unit.scale
    return unit.back(cv2.fastNlMeansDenoising(unit.bytes, None, h, 2 * patch + 1, 2 * search + 1))


def _cv2_bilateral(noisy: Noisy, *, space: float, range_: float, radius: int) -> Array:
    import cv2

    return cv2.bilateralFilter(noisy.image, 2 * radius + 1, range_ * noisy.sigma, space)


def _cv2_gaussian(noisy: Noisy, *, sigma: float) -> Array:
    import cv2

    return cv2.GaussianBlur(noisy.image, (0, 0), sigma)


def _cv2_median(noisy: Noisy, *, radius: int) -> Array:
    import cv2

    return cv2.medianBlur(noisy.image, 2 * radius + 1)


def _skimage_non_local_means(noisy: Noisy, *, strength: float, search: int, patch: int) -> Array:
    from skimage.restoration import denoise_nl_means

    h = strength * noisy.sigma
    return denoise_nl_means(noisy.image, 2 * patch + 1, search, h, fast_mode=True, sigma=noisy.sigma)


def _skimage_total_variation(noisy: Noisy, *, weight: float, iterations: int) -> Array:
    from skimage.restoration import denoise_tv_chambolle

    return denoise_tv_chambolle(noisy.image, weight * noisy.sigma, eps=0.0, max_num_iter=iterations)


def _skimage_wavelets(noisy: Noisy, *, share: float) -> Array:
    from skimage.restoration import denoise_wavelet

    return denoise_wavelet(noisy.image, sigma=share * noisy.sigma, method="BayesShrink", mode="soft")


def _scipy_gaussian(noisy: Noisy, *, sigma: float) -> Array:
    from scipy import ndimage

    return ndimage.gaussian_filter(noisy.image, sigma)


def _scipy_median(noisy: Noisy, *, radius: int) -> Array:
    from scipy import ndimage

    return ndimage.median_filter(noisy.image, 2 * radius + 1)


def _dipy(noisy: Noisy, *, strength: float, search: int, method: str) -> Array:
    from dipy.denoise.nlmeans import nlmeans

    return nlmeans(
        noisy.image,
        strength * noisy.sigma,
        patch_radius=1,
        block_radius=search,
        rician=noisy.noise == "rician",
        num_threads=1,
        method=method,
    )


def _itk(noisy: Noisy, run: Callable[[Any, Any], Any]) -> Array:
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    return SimpleITK.GetArrayFromImage(run(SimpleITK, SimpleITK.GetImageFromArray(noisy.image)))


def _itk_diffusion(noisy: Noisy, *, conductance: float, iterations: int, form: str) -> Array:
    options = {
        "timeStep": _time_step(noisy),
        "conductanceParameter": conductance,
        "numberOfIterations": iterations,
    }
    return _itk(noisy, lambda itk, image: getattr(itk, f"{form}AnisotropicDiffusion")(image, **options))


def _itk_median(noisy: Noisy, *, radius: int) -> Array:
    return _itk(noisy, lambda itk, image: itk.Median(image, [radius] * noisy.image.ndim))


PEERS = (
    Method(
        "OpenCV non-local means",
        _cv2_non_local_means,
        {"strength": _TIMES},
        tuple({"search": s, "patch": p} for p in (1, 2, 3) for s in (3, 5, 10)),
        ndims=(2,),
        package="cv2",
    ),
    Method(
        "OpenCV bilateral",
        _cv2_bilateral,
        {"space": (0.8, 1.2, 1.8, 2.5), "range_": (1.5, 2.0, 2.5, 3.0, 4.0, 6.0)},
        tuple({"radius": r} for r in (1, 2, 3, 4)),
        ndims=(2,),
        package="cv2",
    ),
    Method(
        "OpenCV Gaussian",
        _cv2_gaussian,
        {"sigma": (0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3)},
        ndims=(2,),
        package="cv2",
    ),
    Method(
        "OpenCV median",
        _cv2_median,
        {},
        tuple({"radius": r} for r in (1, 2)),
        ndims=(2,),
        package="cv2",
    ),
    Method(
        "scikit-image non-local means",
        _skimage_non_local_means,
        {"strength": _TIMES},
        tuple({"search": s, "patch": p} for p in (1, 2, 3) for s in (2, 3, 5, 8)),
        ndims=(2,),
        package="skimage",
    ),
    Method(
        "scikit-image non-local means, volume",
        _skimage_non_local_means,
        {"strength": _TIMES},
        tuple({"search": s, "patch": 1} for s in (1, 2, 3)),
        ndims=(3,),
        package="skimage",
    ),
    Method(
        "scikit-image total variation",
        _skimage_total_variation,
        {"weight": (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)},
        tuple({"iterations": n} for n in (5, 10, 20, 50, 100)),
        package="skimage",
    ),
    Method("scikit-image wavelets", _skimage_wavelets, {"share": _TIMES}, package="pywt"),
    Method(
        "SciPy Gaussian",
        _scipy_gaussian,
        {"sigma": (0.4, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3)},
        package="scipy",
    ),
    Method("SciPy median", _scipy_median, {}, tuple({"radius": r} for r in (1, 2)), package="scipy"),
    *(
        Method(
            f"DIPY non-local means, {method}",
            _dipy,
            {"strength": _TIMES},
            tuple({"search": s, "method": method} for s in searches),
            ndims=(3,),
            package="dipy",
        )
        for method, searches in (("blockwise", (1, 2, 3, 5)), ("classic", (1, 2)))
    ),
    *(
        Method(
            f"ITK diffusion, {form.lower()}",
            _itk_diffusion,
            {"conductance": (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)},
            tuple({"iterations": n, "form": form} for n in (3, 5, 10)),
            package="SimpleITK",
        )
        for form in ("Gradient", "Curvature")
    ),
    Method("ITK median", _itk_median, {}, tuple({"radius": r} for r in (1, 2)), package="SimpleITK"),
)
