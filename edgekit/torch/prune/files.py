"""Pruned weights in a file: safetensors, with the plan in its metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import nn

from edgekit import atomic
from edgekit.cuts import Plan
from edgekit.errors import ModelError

KEY = "edgekit.pruning"


def save(
    module: nn.Module,
    plan: Plan,
    path: str | Path,
    *,
    metadata: Mapping[str, str] | None = None,
    force: bool = False,
) -> None:
    """Write a pruned network's weights and plan; the file appears whole or not at all.

    Args:
        module: The pruned network.
        plan: What it kept of the network that its factory makes; an empty one for a network as it was made.
        path: The ``.safetensors`` file.
        metadata: What else to keep, texts by name.
        force: Replace an existing file.

    Raises:
        UsageError: The path cannot be written.
        LimitError: The disk is full.
    """
    texts = dict(metadata or {})
    if plan:
        texts[KEY] = plan.encode()
    # A tensor that modules share stands in the file under each of its names.
    tensors = {name: value.detach().clone().contiguous() for name, value in module.state_dict().items()}
    atomic.write(Path(path), to_bytes(tensors, texts), force=force)


def read_plan(path: str | Path) -> Plan | None:
    """The plan of a file of weights, or ``None`` where it has none.

    Raises:
        ModelError: The file is damaged, or its plan is none.
    """
    file = Path(path)
    if file.suffix != ".safetensors":
        return None
    try:
        with safe_open(file, framework="pt") as opened:
            text = (opened.metadata() or {}).get(KEY)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"the weights cannot be read: {error}", where=file.name) from None
    return None if text is None else Plan.decode(text, where=file.name)
