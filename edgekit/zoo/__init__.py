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
        title: A few words.
        description: One or two sentences: what goes in, what comes out, what it was trained on.
    """

    name: str
    factory: str
    weights: Path
    inputs: Mapping[str, str]
    title: str
    description: str


def _model(name: str, inputs: dict[str, str], title: str, description: str) -> ZooModel:
    weights = Path(__file__).parent / "weights" / f"{name}.safetensors"
    return ZooModel(name, f"edgekit.zoo.{name}:build", weights, MappingProxyType(inputs), title, description)


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
            ),
        )
    }
)
