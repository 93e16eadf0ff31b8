"""Proof that a pruned network is the network without the cut channels."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgekit.cuts import Plan
from edgekit.torch.prune.apply import apply, edits
from edgekit.torch.prune.trace import plain_operators, tensors_of
from edgekit.torch.source import reason

# How well the pruned network has to agree with the one whose cut channels are zero: rounding stays far below.
_SNR_DB = 60.0

# Runs a module on one sample and returns what it gives.
Run = Callable[[nn.Module], Any]


@dataclass(frozen=True)
class Failure:
    """What went wrong with a pruned network.

    Attributes:
        path: The module whose code failed; ``None`` where it ran and gave something else.
        text: What happened.
    """

    path: str | None
    text: str


def awake(module: nn.Module) -> nn.Module:
    """A copy for checks: what is all zero gets small numbers, since agreement of zeros says nothing."""
    made = copy.deepcopy(module).eval()
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.is_floating_point() and not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=rng) * 0.05)
    return made


def check(module: nn.Module, plan: Plan, run: Run, *, exactly: bool) -> Failure | None:
    """Cut a copy of a network and run it.

    Args:
        module: The network before, from :func:`awake`.
        plan: What is kept.
        run: Runs it on a sample.
        exactly: Whether it has to give what the whole network gives with the cut channels set to zero. That
            holds wherever no statistic spans the channels.

    Returns:
        What is wrong, or ``None``.
    """
    pruned = copy.deepcopy(module)
    apply(pruned, plan, where="plan")
    got = attempt(pruned, run)
    if isinstance(got, Failure):
        return got
    want = attempt(masked(module, plan) if exactly else module, run)
    assert not isinstance(want, Failure)
    shapes = [tuple(t.shape) for t in got], [tuple(t.shape) for t in want]
    if shapes[0] != shapes[1]:
        return Failure(None, f"it gives {shapes[0]} instead of {shapes[1]}")
    if not all(bool(tensor.isfinite().all()) for tensor in got):
        return Failure(None, "it gives values that are not finite")
    worst = min((_snr_db(one, other) for one, other in zip(want, got, strict=True)), default=math.inf)
    if exactly and worst < _SNR_DB:
        return Failure(None, f"it differs from the network without these channels ({worst:.0f} dB)")
    return None


def masked(module: nn.Module, plan: Plan) -> nn.Module:
    """A copy of the whole network with everything set to zero that the plan cuts."""
    made = copy.deepcopy(module)
    with torch.no_grad():
        for part, name, axis, kept in edits(made, plan, where="plan"):
            gone = torch.ones(kept.of, dtype=torch.bool)
            gone[list(kept.kept)] = False
            tensor: Tensor = getattr(part, name)
            tensor.index_fill_(axis, gone.nonzero()[:, 0], 1.0 if name == "running_var" else 0.0)
    return made


def attempt(module: nn.Module, run: Run) -> list[Tensor] | Failure:
    """Run a module; where it fails, say in which of its parts."""
    inside: list[str] = []
    handles = []
    for path, part in module.named_modules():

        def enter(module: nn.Module, args: Any, path: str = path) -> None:
            inside.append(path)

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            inside.pop()

        handles += [part.register_forward_pre_hook(enter, prepend=True), part.register_forward_hook(leave)]
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a network that draws numbers draws the same ones every time
            return [t.detach() for t in tensors_of(run(module)) if t.is_floating_point()]
    except Exception as error:  # noqa: BLE001 - a forward can raise anything
        return Failure(inside[-1] if inside else "", reason(error))
    finally:
        for handle in handles:
            handle.remove()


def parameters(module: nn.Module) -> int:
    """Numbers in a network's parameters, shared ones once."""
    return sum(parameter.numel() for parameter in module.parameters())


def flops(module: nn.Module, run: Run) -> int:
    """Floating-point operations of one run, as torch counts them: two for each multiply-add."""
    with plain_operators(), FlopCounterMode(display=False) as counter, torch.no_grad():
        run(module)
    return int(counter.get_total_flops())


def _snr_db(want: Tensor, got: Tensor) -> float:
    noise = float((want.double() - got.double()).square().sum())
    return (
        math.inf if noise == 0 else 10 * math.log10(max(float(want.double().square().sum()), 1e-300) / noise)
    )
