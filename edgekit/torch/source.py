"""Where a torch module comes from: a factory and its weights, or a program that was exported before."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import EdgekitError, ModelError

_REASON_CHARACTERS = 300


def call_factory(source: str) -> nn.Module:
    """The module that ``"package.module:function"`` returns."""
    name, _, function = source.partition(":")
    try:
        factory = getattr(importlib.import_module(name), function)
        module = factory()
    except EdgekitError:
        raise
    except Exception as error:
        raise ModelError(
            f"the factory failed: {reason(error)}",
            where=source,
            hint=f"python -c 'import {name}' shows more",
        ) from error
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"a factory wants to return a torch.nn.Module, got {type(module).__name__}", where=source
        )
    return module


def load_weights(module: nn.Module, path: Path) -> list[str]:
    """Load a state dictionary, into a module that is cut to its plan where it was pruned.

    Nothing in the file is ever executed.
    """
    from edgekit.torch.prune import apply, read_plan  # pruning itself needs this module

    notes = []
    plan = read_plan(path)
    if plan is not None:
        apply(module, plan, where=path.name)
        notes.append(f"cut {len(plan.layers)} layers to the pruning plan of {path.name}")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state: Any = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # safetensors, zip, unpickling and torch's own errors
        raise ModelError(f"the weights cannot be read: {reason(error)}", where=path.name) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
        notes.append(f"took the entry 'state_dict' of {path.name}")
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelError(
            "the weights want to be a state dictionary: tensors by name",
            where=path.name,
            hint="torch.save(model.state_dict(), 'model.pt')",
        )
    _check_state(module, state, path)
    module.load_state_dict(dict(state))
    return notes


def _check_state(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    wanted = module.state_dict()
    other = [
        f"{name} (want {_sizes(tensor)}, got {_sizes(state[name])})"
        for name, tensor in wanted.items()
        if name in state and tensor.shape != state[name].shape
    ]
    groups = {
        "missing": [name for name in wanted if name not in state],
        "unknown": [name for name in state if name not in wanted],
        "of another shape": other,
    }
    problems = [
        f"  {len(names)} {title}: {', '.join(names[:8])}{', …' if len(names) > 8 else ''}"
        for title, names in groups.items()
        if names
    ]
    if problems:
        raise ModelError(
            "\n".join(["the weights do not fit the module:", *problems]),
            where=path.name,
            hint="use the weights and the factory of one model",
        )


def _sizes(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"


def read_pt2(source: str, shapes: Mapping[str, str]) -> tuple[nn.Module, Mapping[str, str]]:
    """The module of an exported program that the user trusts, with the shapes it was exported for."""
    try:
        program = torch.export.load(source)
        module = program.module()
    except Exception as error:
        raise ModelError(f"the .pt2 file cannot be read: {reason(error)}", where=Path(source).name) from error
    recorded = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs:
            lengths = node.meta["val"].shape
            if all(isinstance(length, int) for length in lengths):
                recorded[node.name] = "x".join(map(str, lengths))
    return module, {**recorded, **shapes}


def reason(error: BaseException) -> str:
    """One line of an exception, of the one at the root where they are chained."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {' '.join(lines[:2])}" if lines else type(error).__name__
    return text if len(text) <= _REASON_CHARACTERS else text[: _REASON_CHARACTERS - 1] + "…"
