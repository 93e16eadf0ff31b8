"""Networks from a factory and a file of weights, and back into a file."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from edgekit.cuts import Plan
from edgekit.errors import ModelError
from edgekit.torch.prune import read_plan
from edgekit.torch.source import call_factory, load_weights


@dataclass(frozen=True, eq=False)
class Loaded:
    """A network with its weights.

    Attributes:
        module: The network.
        plan: What pruning left of what the factory gives; ``None`` where nothing was cut.
        metadata: What its file says besides the weights, texts by name.
        notes: What a user wants to know of the way in.
    """

    module: nn.Module
    plan: Plan | None
    metadata: Mapping[str, str]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, source: str, weights: Path) -> Loaded:
        """Call a factory and load weights into what it gives.

        Raises:
            ModelError: The factory fails, or the weights cannot be read or do not fit.
        """
        # A user's module lies where the command was typed.
        if str(Path.cwd()) not in sys.path:
            sys.path.insert(0, str(Path.cwd()))
        module = call_factory(source)
        notes = load_weights(module, weights)
        return cls(module, read_plan(weights), _metadata(weights), tuple(notes))

    def kept_of(self, original: Loaded) -> dict[str, tuple[int, ...]]:
        """By path of a layer, the channels of the original's output that this one still has.

        Where the original was pruned too, what it lost is not counted; a layer that keeps what the original
        lost is left out.
        """
        found = {}
        for path, layer in (self.plan.layers if self.plan else {}).items():
            if layer.out is None:
                continue
            other = original.plan.layers.get(path) if original.plan else None
            known = other.out.kept if other is not None and other.out is not None else range(layer.out.of)
            place = {channel: index for index, channel in enumerate(known)}
            if all(channel in place for channel in layer.out.kept):
                found[path] = tuple(place[channel] for channel in layer.out.kept)
        return found


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise ModelError(f"the weights cannot be read: {error}", where=path.name) from None


def save(network: Loaded, path: Path, metadata: Mapping[str, str]) -> None:
    """Write weights with what their first file said besides them, a pruning plan for one, and more.

    Args:
        network: As it was loaded; its module's weights as they are now.
        path: The ``.safetensors`` file.
        metadata: Texts by name, in the place of earlier ones.
    """
    # A tensor that modules share stands in the file under each of its names.
    tensors = {
        name: value.detach().clone().contiguous() for name, value in network.module.state_dict().items()
    }
    path.write_bytes(to_bytes(tensors, {**network.metadata, **metadata}))
