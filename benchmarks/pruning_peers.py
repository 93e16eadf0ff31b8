"""What Torch-Pruning makes of the same network: its own dependency graph, the same data, the same recovery.

The library says which channels belong together and cuts them; its ratio is the one that leaves as much work
as edgekit's cut does. The importance is the library's Taylor, from the same samples and without labels.
Recovery is edgekit's own loop, since the library has none, without the features that a plan would match.
"""

from __future__ import annotations

import contextlib
import copy
import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekit.errors import EdgekitError
from edgekit.torch.prune.trace import tensors_of

# The ratio is bisected this often; channels come in eights, so a finer one changes nothing.
_BISECTIONS = 5
_MULTIPLE = 8

Sample = Mapping[str, Tensor]


@dataclass(frozen=True)
class Cut:
    """A network that the library cut.

    Attributes:
        module: It, proved to run.
        share: Share of the multiply-adds that is gone.
        detail: What a reader wants to know of how it was done.
    """

    module: nn.Module
    share: float
    detail: str


class Failure(Exception):
    """The library did not make a smaller network that runs; the text says how it failed."""


def cut(module: nn.Module, samples: Sequence[Sample], share: float) -> Cut:
    """Cut about this share of the multiply-adds.

    Raises:
        Failure: As the library fails, or because it cut nothing, or the network does not run any more.
    """
    try:
        return _bisected(module, samples, share)
    except Failure:
        raise
    except Exception as plain:
        # Single-slope rectifiers are what it trips over most often; they hold no channels.
        if not any(isinstance(part, nn.PReLU) and part.num_parameters == 1 for part in module.modules()):
            raise Failure(_told(plain)) from plain
        try:
            found = _bisected(module, samples, share, swapped=True)
        except Exception as error:
            raise Failure(f"{_told(plain)}; with PReLU swapped out: {_told(error)}") from error
        return Cut(found.module, found.share, f"as it is: {_told(plain)}; cut with PReLU swapped out")


def _told(error: Exception) -> str:
    if isinstance(error, Failure):
        return str(error)
    message = error.message if isinstance(error, EdgekitError) else str(error)
    return f"{type(error).__name__}: {(message.splitlines() or [''])[0][:160]}"


def _bisected(module: nn.Module, samples: Sequence[Sample], share: float, *, swapped: bool = False) -> Cut:
    low, high, best = 0.0, 0.95, None
    gradients = _gradients(module, samples)
    for _ in range(_BISECTIONS):
        ratio = (low + high) / 2
        found = _cut_by(module, gradients, samples[0], ratio, swapped)
        if best is None or abs(found.share - share) < abs(best.share - share):
            best = found
        low, high = (ratio, high) if found.share < share else (low, ratio)
    assert best is not None
    if best.share < 0.01:
        raise Failure("it runs and cuts nothing")
    return best


def _cut_by(
    module: nn.Module, gradients: Mapping[str, Tensor], sample: Sample, ratio: float, swapped: bool
) -> Cut:
    import torch_pruning as library

    network = copy.deepcopy(module).eval()
    for name, parameter in network.named_parameters():
        parameter.grad = gradients[name].clone() if name in gradients else None
    back = _swap_out(network) if swapped else lambda: None
    example = dict(sample)
    before = _work(network, example)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner = library.pruner.BasePruner(
            network,
            example,
            importance=library.importance.GroupTaylorImportance(),
            global_pruning=True,
            pruning_ratio=ratio,
            ignored_layers=heads(network, example),
            round_to=_MULTIPLE,
        )
        pruner.step()
    network.zero_grad(set_to_none=True)
    after = _work(network, example)
    back()
    shapes = [[tuple(t.shape) for t in tensors_of(one(**example))] for one in (module, network)]
    if shapes[0] != shapes[1]:
        raise Failure(f"the pruned network gives {shapes[1]} and not {shapes[0]}")
    return Cut(network, 1 - after / before, f"ratio {ratio:.2f}")


def _work(network: nn.Module, example: Sample) -> float:
    """Multiply-adds, as the library counts them; what it prints meanwhile says nothing."""
    import torch_pruning as library

    with contextlib.redirect_stdout(io.StringIO()):
        return float(library.utils.count_ops_and_params(network, dict(example))[0])


def _gradients(module: nn.Module, samples: Sequence[Sample]) -> dict[str, Tensor]:
    """Of the outputs under random signs, as edgekit takes them: no labels are needed."""
    rng = torch.Generator().manual_seed(0)
    module.zero_grad(set_to_none=True)
    for sample in samples:
        outputs = [t for t in tensors_of(module(**sample)) if t.requires_grad]
        signs = [torch.randint(0, 2, t.shape, generator=rng) * 2.0 - 1 for t in outputs]
        torch.stack([(t * sign).sum() for t, sign in zip(outputs, signs, strict=True)]).sum().backward()
    found = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad(set_to_none=True)
    return found


def heads(network: nn.Module, example: Sample) -> list[nn.Module]:
    """Layers whose outgoing channels are the network's own outputs, which the library wants to be told.

    Those are the ones from which an output is reached without another layer between.
    """
    layers = {
        id(part.weight): part
        for part in network.modules()
        if isinstance(part, nn.Linear | nn.modules.conv._ConvNd)
    }
    waiting = [t.grad_fn for t in tensors_of(network(**example)) if t.grad_fn is not None]
    found, seen = [], set()
    while waiting:
        node: Any = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        inputs = [following for following, _ in node.next_functions if following is not None]
        own = [layers[id(n.variable)] for n in _leaves(inputs) if id(n.variable) in layers]
        found += own
        waiting += [] if own else inputs
    return found


def _leaves(nodes: Sequence[Any]) -> list[Any]:
    """Parameters among a node's inputs, also behind a transposition, as linear layers have them."""
    behind = [n for node in nodes if type(node).__name__ == "TBackward0" for n, _ in node.next_functions]
    return [node for node in (*nodes, *behind) if hasattr(node, "variable")]


def _swap_out(network: nn.Module) -> Callable[[], None]:
    """Put ReLU in the place of every single-slope PReLU; the result puts them back."""
    swapped: list[tuple[nn.Module, str, nn.Module]] = []
    for parent in network.modules():
        for name, part in parent.named_children():
            if isinstance(part, nn.PReLU) and part.num_parameters == 1:
                swapped.append((parent, name, part))
                setattr(parent, name, nn.ReLU())

    def back() -> None:
        for parent, name, part in swapped:
            setattr(parent, name, part)

    return back
