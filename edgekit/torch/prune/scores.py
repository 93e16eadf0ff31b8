"""How important each channel is: Torch-Pruning's estimators, asked layer by layer.

Which channels belong together is our own finding (:mod:`edgekit.torch.prune.trace`); the library says what a
layer's channel is worth, and a class of channels is worth what its members are together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.cuts import Kind
from edgekit.errors import ModelError
from edgekit.registry import Requirement
from edgekit.torch.prune.apply import kind_of
from edgekit.torch.prune.trace import tensors_of

LIBRARY = Requirement("torch_pruning", "torch-pruning", "prune", "1.6.1")
Scores = dict[tuple[str, str], Tensor]

_SCORED: tuple[Kind, ...] = ("convolution", "transposed convolution", "linear")


def score(module: nn.Module, runs: Sequence[Callable[[], Any]], importance: str, *, seed: int = 0) -> Scores:
    """Scores of the channels of every convolution and linear layer.

    By magnitude, those of the outgoing and the incoming weights are summed. By Taylor, a channel's score is
    the square of how much the outputs change to first order when its incoming weights are set to zero; the
    mean over the samples, each with the outputs weighted by random signs. No labels are needed.

    Args:
        module: The network, in evaluation mode; its gradients are overwritten.
        runs: Each runs it on one sample and returns what it gives. Magnitudes need none.
        importance: ``"l1"``, ``"l2"`` or ``"taylor"``.
        seed: For the random signs.

    Returns:
        By path and side (``"out"`` or ``"into"``), one score for each channel as a plan counts them.

    Raises:
        UnavailableError: Torch-Pruning is missing.
        ModelError: The gradients of the network cannot be computed, or are not finite.
    """
    library = LIBRARY.load()
    layers = {path: part for path, part in module.named_modules() if kind_of(part) in _SCORED}
    if importance != "taylor":
        estimator = library.importance.GroupMagnitudeImportance(
            p=1 if importance == "l1" else 2, group_reduction="sum", normalizer=None
        )
        return {
            (path, side): _ask(library, estimator, layer, side)
            for path, layer in layers.items()
            for side in ("out", "into")
        }
    estimator = library.importance.GroupTaylorImportance(
        group_reduction="sum", normalizer=None, multivariable=True
    )
    total: Scores = {}
    rng = torch.Generator().manual_seed(seed)
    for run in runs:
        _backward(module, run, rng)
        for path, layer in layers.items():
            if layer.weight.grad is not None:
                found = _ask(library, estimator, layer, "into").square()
                if not bool(found.isfinite().all()):
                    raise ModelError("the gradients are not finite", where=path, hint="--importance l2")
                total[path, "into"] = total.get((path, "into"), torch.zeros_like(found)) + found
    module.zero_grad(set_to_none=True)
    return total


def _ask(library: Any, estimator: Any, layer: Any, side: str) -> Tensor:
    """The library's scores of one side of one layer."""
    kind = "linear" if isinstance(layer, nn.Linear) else "conv"
    function = getattr(library, f"prune_{kind}_{'out' if side == 'out' else 'in'}_channels")
    axis = (
        (0 if side == "out" else 1)
        if not getattr(layer, "transposed", False)
        else (1 if side == "out" else 0)
    )
    node = library.dependency.Node(layer, None)
    group = library.dependency.Group()
    indices = list(range(layer.weight.shape[axis]))
    group.add_dep(library.dependency.Dependency(function, function, node, node), indices)
    group[0].root_idxs = indices
    found: Tensor = estimator(group)
    return found.detach()[: len(indices)]


def _backward(module: nn.Module, run: Callable[[], Any], rng: torch.Generator) -> None:
    module.zero_grad(set_to_none=True)
    try:
        with torch.enable_grad():
            outputs = [t for t in tensors_of(run()) if t.is_floating_point() and t.requires_grad]
            if not outputs:
                raise ModelError("no output depends on the weights", hint="--importance l2")
            total = outputs[0].new_zeros(())
            for output in outputs:
                signs = torch.randint(0, 2, output.shape, generator=rng).to(output) * 2 - 1
                # Outputs of any unit count alike.
                scale = output.detach().std(correction=0).clamp_min(1e-12) * output.numel() ** 0.5
                total = total + (output * signs).sum() / scale
            total.backward()  # type: ignore[no-untyped-call]
    except ModelError:
        raise
    except Exception as error:
        from edgekit.torch.source import reason

        raise ModelError(
            f"the gradients of the network cannot be computed: {reason(error)}",
            where=type(module).__qualname__,
            hint="--importance l2",
        ) from error
