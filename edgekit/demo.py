"""The main job on real images: both reference models compiled for this processor, run and measured.

Needs no download. The images ship inside dependencies: the MNI152 T1 template with its tissue maps
(nilearn), a CT slice and an ultrasound clip (pydicom).
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgekit import atomic, kernels, pipeline, runtime, schema, volumes
from edgekit.bundle import Bundle
from edgekit.metrics import dice
from edgekit.registry import Requirement
from edgekit.reports import Candidate, LatencyReport
from edgekit.zoo import MODELS

Image = npt.NDArray[np.float32]
_Pictures = dict[str, dict[str, Image]]  # file name -> caption -> grey image

_NILEARN = Requirement("nilearn", "nilearn", "demo")
_SKIMAGE = Requirement("skimage", "scikit-image", "demo")
_PILLOW = Requirement("PIL", "pillow", "demo")
_SCIPY = Requirement("scipy", "scipy", "demo")

_SPACING_MM = 2
_GRID_ZYX = (96, 112, 96)
_FIELD_SIGMA_VOX = 7.0
_FIELD_MEAN_MM = 3.5
_NOISE_SHARE = 0.10
_GAP, _CAPTION = 4, 22  # pixels


@dataclass(frozen=True)
class RegistrationFigures:
    """The MNI152 template registered to a copy of it that a known field deformed.

    Attributes:
        field_error_before_mm: Mean length of the known displacement inside the brain.
        field_error_after_mm: Mean length of known minus recovered displacement there.
        dice_before: Overlap of each tissue's mask before, by name.
        dice_after: And after.
        folding: Share of voxels whose Jacobian determinant is not positive.
    """

    field_error_before_mm: float
    field_error_after_mm: float
    dice_before: dict[str, float]
    dice_after: dict[str, float]
    folding: float


@dataclass(frozen=True)
class DenoisingFigures:
    """One image with added Gaussian noise; a clip's figures are means over its frames.

    Attributes:
        image: What it shows.
        sigma: Standard deviation of the noise, 10 % of the image's range (largest minus smallest value).
        psnr_db: Peak signal-to-noise ratio by method: ``noisy``, ``edgekit``, ``non-local means``.
        ssim: Structural similarity likewise.
    """

    image: str
    sigma: float
    psnr_db: dict[str, float]
    ssim: dict[str, float]


@dataclass(frozen=True)
class Compiled:
    """One bundle of the demo: who took part, and how fast the chosen one is."""

    file: str
    candidates: tuple[Candidate, ...]
    latency: LatencyReport | None


@dataclass(frozen=True)
class DemoReport:
    """Everything that the demo shows."""

    registration: RegistrationFigures
    denoising: tuple[DenoisingFigures, ...]
    bundles: tuple[Compiled, ...]
    files: tuple[str, ...]


def run(folder: Path, *, on_event: Callable[[str], None] = lambda event: None) -> DemoReport:
    """Do it all and write bundles, pictures and figures into ``folder`` (earlier ones are replaced).

    Raises:
        UnavailableError: A package of ``edgekit[demo]`` is missing.
        EdgekitError: Whatever a step of the flow meets.
    """
    for requirement in (_NILEARN, _SKIMAGE, _PILLOW, _SCIPY):
        requirement.load()
    folder.mkdir(parents=True, exist_ok=True)
    case = _registration_case()
    ct, clip = _read_example("CT_small.dcm"), _read_example("examples_ybr_color.dcm")

    grid = "x".join(map(str, _GRID_ZYX))
    register = _compile(
        "register3d",
        {"moving": f"1x1x{grid}", "fixed": f"1x1x{grid}"},
        {"moving": case.moving[None, None], "fixed": case.fixed[None, None]},
        folder,
        on_event,
    )
    noisy = _add_noise(ct)
    height, width = ct.shape
    denoise = _compile(
        "denoise2d", {"image": f"1x1x{height}x{width}"}, {"image": noisy[None, None]}, folder, on_event
    )
    height, width = clip.shape[1:]
    denoise_clip = _compile(
        "denoise2d",
        {"image": f"1x1x{height}x{width}"},
        {"image": _add_noise(clip)[:1, None]},
        folder,
        on_event,
        name="denoise2d-clip",
    )

    on_event("register the template")
    registration, pictures = _register(case, folder / "register3d.ekb")
    on_event("denoise the CT slice and the ultrasound clip")
    figures = []
    for title, frames, bundle in (
        ("CT slice", ct[None], "denoise2d.ekb"),
        ("ultrasound clip", clip, "denoise2d-clip.ekb"),
    ):
        figure, picture = _denoise(title, frames, folder / bundle)
        figures.append(figure)
        pictures |= picture
    files = [_write_picture(folder / name, panels) for name, panels in pictures.items()]
    report = DemoReport(
        registration,
        tuple(figures),
        (register, denoise, denoise_clip),
        (*(c.file for c in (register, denoise, denoise_clip)), *map(str, files), str(folder / "demo.json")),
    )
    atomic.write(folder / "demo.json", json.dumps(schema.encode(report), indent=2).encode(), force=True)
    return report


@dataclass(frozen=True)
class _RegistrationCase:
    """``fixed(p) = moving(p + flow(p))`` with a known diffeomorphic flow ``[3, D, H, W]``."""

    moving: Image
    fixed: Image
    flow_vox: Image
    brain: npt.NDArray[np.bool_]
    tissues: dict[str, Image]


def _registration_case() -> _RegistrationCase:
    from nilearn import datasets

    moving = _on_grid(datasets.load_mni152_template(resolution=_SPACING_MM))
    tissues = {
        "grey matter": _on_grid(datasets.load_mni152_gm_template(resolution=_SPACING_MM)),
        "white matter": _on_grid(datasets.load_mni152_wm_template(resolution=_SPACING_MM)),
    }
    flow = _smooth_diffeomorphism(seed=7)
    brain = tissues["grey matter"] + tissues["white matter"] > 0.5
    scale = _FIELD_MEAN_MM / _SPACING_MM / np.linalg.norm(flow, axis=0)[brain].mean()
    flow = kernels.integrate_velocity((flow * scale)[None].astype(np.float32))[0]
    return _RegistrationCase(
        moving, _warp(moving, flow), flow, _warp(brain.astype(np.float32), flow) > 0.5, tissues
    )


def _smooth_diffeomorphism(seed: int) -> Image:
    """A Gaussian-smoothed random velocity [3, D, H, W] of arbitrary scale."""
    from scipy import ndimage

    noise = np.random.default_rng(seed).standard_normal((3, *_GRID_ZYX))
    return np.stack([ndimage.gaussian_filter(n, _FIELD_SIGMA_VOX, mode="constant") for n in noise]).astype(
        np.float32
    )


def _on_grid(image: object) -> Image:
    """A NIfTI image as (z, y, x), cropped or padded around its centre to the demo's grid."""
    array = np.asarray(image.dataobj, dtype=np.float32).T  # type: ignore[attr-defined]
    for axis, want in enumerate(_GRID_ZYX):
        excess = array.shape[axis] - want
        if excess > 0:
            array = np.take(array, range(excess // 2, excess // 2 + want), axis=axis)
        else:
            pad = [(0, 0)] * array.ndim
            pad[axis] = (-excess // 2, -excess - (-excess // 2))
            array = np.pad(array, pad)
    return np.ascontiguousarray(array)


def _warp(image: Image, flow_vox: Image) -> Image:
    return kernels.warp(image[None, None], flow_vox[None])[0, 0]  # type: ignore[no-any-return]


def _read_example(name: str) -> Image:
    """A DICOM file that ships inside pydicom, as float32."""
    from pydicom.data import get_testdata_file

    path = get_testdata_file(name, download=False)
    image: Image = volumes.read(Path(str(path))).array.astype(np.float32)
    return image


def _add_noise(image: Image, seed: int = 11) -> Image:
    noise = np.random.default_rng(seed).standard_normal(image.shape)
    noisy: Image = (image + _NOISE_SHARE * np.ptp(image) * noise).astype(np.float32)
    return noisy


def _compile(
    model: str,
    shapes: Mapping[str, str],
    inputs: Mapping[str, npt.NDArray[np.generic]],
    folder: Path,
    on_event: Callable[[str], None],
    name: str | None = None,
) -> Compiled:
    entry = MODELS[model]
    path = folder / f"{name or model}.ekb"
    bundle: Bundle = pipeline.compile(
        entry.factory,
        target="cpu",
        shapes=shapes,
        weights=entry.weights,
        inputs=inputs,
        output=path,
        force=True,
        name=name or model,
        on_event=lambda event: on_event(f"{path.stem}: {event}"),
    )
    return Compiled(str(path), bundle.manifest.candidates, bundle.manifest.latency)


def _register(case: _RegistrationCase, path: Path) -> tuple[RegistrationFigures, _Pictures]:
    with runtime.open(path) as session:
        outputs = session.run({"moving": case.moving[None, None], "fixed": case.fixed[None, None]})
    moved, flow = outputs["moved"][0, 0], outputs["flow_vox"][0]
    truth = {name: _warp(tissue, case.flow_vox) > 0.5 for name, tissue in case.tissues.items()}
    figures = RegistrationFigures(
        field_error_before_mm=_mean_length_mm(case.flow_vox, case.brain),
        field_error_after_mm=_mean_length_mm(case.flow_vox - flow, case.brain),
        dice_before={name: dice(case.tissues[name] > 0.5, mask) for name, mask in truth.items()},
        dice_after={name: dice(_warp(case.tissues[name], flow) > 0.5, mask) for name, mask in truth.items()},
        folding=float(kernels.folding_fraction(flow[None])),
    )
    middle = _GRID_ZYX[0] // 2
    panels = {
        "template (moving)": case.moving,
        "deformed copy (fixed)": case.fixed,
        "registered": moved,
        "difference before": abs(case.moving - case.fixed),
        "difference after": abs(moved - case.fixed),
    }
    scale = float(case.moving.max())
    return figures, {"registration.png": {name: v[middle, ::-1] / scale for name, v in panels.items()}}


def _mean_length_mm(field_vox: Image, mask: npt.NDArray[np.bool_]) -> float:
    return float(np.linalg.norm(field_vox, axis=0)[mask].mean() * _SPACING_MM)


def _denoise(title: str, frames: Image, path: Path) -> tuple[DenoisingFigures, _Pictures]:
    from skimage import metrics, restoration

    noisy, sigma, span = _add_noise(frames), float(_NOISE_SHARE * np.ptp(frames)), float(np.ptp(frames))
    with runtime.open(path) as session:
        ours = np.stack([session.run({"image": f[None, None]})["denoised"][0, 0] for f in noisy])
    peer = np.stack(
        [
            restoration.denoise_nl_means(f, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma)
            for f in noisy
        ]
    )
    results = {"noisy": noisy, "edgekit": ours, "non-local means": peer}
    psnr, ssim = metrics.peak_signal_noise_ratio, metrics.structural_similarity
    pairs = {name: list(zip(frames, result, strict=True)) for name, result in results.items()}
    figures = DenoisingFigures(
        image=title,
        sigma=sigma,
        psnr_db={n: float(np.mean([psnr(a, b, data_range=span) for a, b in p])) for n, p in pairs.items()},
        ssim={n: float(np.mean([ssim(a, b, data_range=span) for a, b in p])) for n, p in pairs.items()},
    )
    panels = {"original": frames, **results}
    low = float(frames.min())
    return figures, {
        f"{title.replace(' ', '-')}.png": {name: (v[0] - low) / span for name, v in panels.items()}
    }


def _write_picture(path: Path, panels: Mapping[str, Image]) -> Path:
    """Grey images side by side under their names, 0 black and 1 white, enlarged to at least 256 rows."""
    from PIL import Image as pillow
    from PIL import ImageDraw

    height, width = next(iter(panels.values())).shape
    factor = -(-256 // height)
    size = (width * factor, height * factor)
    sheet = pillow.new("L", ((size[0] + _GAP) * len(panels), size[1] + _CAPTION), color=255)
    pen = ImageDraw.Draw(sheet)
    for index, (name, panel) in enumerate(panels.items()):
        grey = pillow.fromarray((np.clip(panel, 0, 1) * 255).round().astype(np.uint8))
        left = index * (size[0] + _GAP)
        sheet.paste(grey.resize(size, pillow.Resampling.NEAREST), (left, _CAPTION))
        pen.text((left + 2, 2), name, fill=0, font_size=14)
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG")
    atomic.write(path, buffer.getvalue(), force=True)
    return path
