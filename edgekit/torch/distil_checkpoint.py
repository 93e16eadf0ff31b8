"""The state of an unfinished training in one file: tensors by name, and a JSON text in its header."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgekit import atomic
from edgekit.errors import CorruptError, MismatchError, UsageError

_KEY = "edgekit.distil"
_VERSION = 1


def write(path: Path, tensors: Mapping[str, Tensor], state: Mapping[str, Any], identity: str) -> None:
    """Write a checkpoint, whole or not at all, in the place of an earlier one.

    Args:
        path: The file.
        tensors: By name.
        state: JSON values.
        identity: What the run is, from :func:`identity_of`.
    """
    header = {"version": _VERSION, "identity": identity, "state": dict(state)}
    plain = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    atomic.write(path, save(plain, {_KEY: json.dumps(header)}), force=True)


def read(path: Path, identity: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the state of a checkpoint.

    Raises:
        UsageError: There is no such file.
        CorruptError: It is damaged or no checkpoint.
        MismatchError: It belongs to another run, or to another release.
    """
    if not path.is_file():
        raise UsageError("no checkpoint to go on from", where=str(path), hint="leave --resume out")
    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {})[_KEY])
            version, owner, state = header["version"], header["identity"], header["state"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"not a checkpoint, or a damaged one: {error}", where=str(path)) from None
    if version != _VERSION:
        raise MismatchError(f"a checkpoint of format {version}: want {_VERSION}", where=str(path))
    if owner != identity:
        raise MismatchError(
            "the checkpoint belongs to another run: its weights, samples or options are not these",
            where=str(path),
            hint="give what the run was begun with, or remove the file",
        )
    return tensors, state


def identity_of(texts: Iterable[str], tensors: Iterable[Tensor]) -> str:
    """A digest of everything that makes a run what it is."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)}:{text}".encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
