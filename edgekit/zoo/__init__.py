"""The reference models, as data. Importing this loads no framework; a factory does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

__all__ = ["MODELS", "ZooModel"]


@dataclass(frozen=True)
class ZooModel:
    """One model that ships with edgekit.

    Attributes:
        name: Its key in :data:`MODELS`.
        factory: ``package.module:function``; the function returns the module without weights.
        weights: The ``.safetensors`` file that goes with it.
        inputs: Shape of each input, with ranges and steps as ``--shape`` takes them.
        in_place: Whether its result is an image like its input, so that it can stand in front of a network.
        title: A few words.
        description: One or two sentences: what goes in, what comes out, what it was trained on.
    """

    name: str
    factory: str
    weights: Path
    inputs: Mapping[str, str]
    title: str
    description: str
    in_place: bool = False


def _model(
    name: str, inputs: dict[str, str], title: str, description: str, *, in_place: bool = False
) -> ZooModel:
    weights = Path(__file__).parent / "weights" / f"{name}.safetensors"
    factory = f"edgekit.zoo.{name}:build"
    return ZooModel(name, factory, weights, MappingProxyType(inputs), title, description, in_place)


_VOLUME = "1x1x[64:192:16]x[64:192:16]x[64:192:16]"

MODELS: Mapping[str, ZooModel] = MappingProxyType(
    {
        model.name: model
        for model in (
            _model(
                "register3d",
                {"moving": _VOLUME, "fixed": _VOLUME},
                "deformable registration of two volumes",
                "Two volumes of any intensity scale, roughly aligned, give the warped moving volume and the "
                "displacement in voxels. Trained on random shapes of random contrast.",
            ),
            _model(
                "denoise2d",
                {"image": "1x1x[64:512:8]x[64:512:8]"},
                "blind denoising of an image",
                "An image in any unit with Gaussian or Rician noise of unknown level gives the image without "
                "it. Trained on random pictures.",
                in_place=True,
            ),
            _model(
                "segment2d",
                {"image": "1x1x[192:320:16]x[192:320:16]"},
                "labels in a slice of an abdomen",
                "A CT or MR slice with grey values from 0 to 1 gives logits of background, liver, kidney and "
                "liver lesion. Trained on drawn bodies.",
            ),
            _model(
                "segment3d",
                {"image": "1x1x[32:128:16]x[32:128:16]x[32:128:16]"},
                "labels in a volume of a head",
                "A T1 or FLAIR volume of any intensity scale gives logits of background, brain, ventricle "
                "and white-matter lesion. Trained on drawn heads.",
            ),
            _model(
                "classify2d",
                {"image": "1x1x[128:224:32]x[128:224:32]"},
                "findings in an ultrasound image of a breast",
                "An image with grey values from 0 to 1 gives logits of nothing, cyst, fibroadenoma and "
                "carcinoma. Trained on drawn images.",
            ),
        )
    }
)
