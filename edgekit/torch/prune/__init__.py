"""Structured pruning: channels that matter least are cut out of a network, all that belongs together at once.

    from edgekit.torch import prune
    pruned = prune.prune(module, samples, share=0.5)
    pruned.module                    # smaller, the same inputs and outputs
    prune.save(pruned.module, pruned.plan, "pruned.safetensors")

One run of the network tells which channels of which layers go together
(:mod:`~edgekit.torch.prune.trace`), Torch-Pruning says how important they are
(:mod:`~edgekit.torch.prune.scores`), and every cut is proved by running the network
(:mod:`~edgekit.torch.prune.verify`). What is kept is a plan, plain data that stands beside
the weights (:mod:`edgekit.cuts`). :mod:`edgekit.slimming` prunes until a measured latency is reached.
"""

from edgekit.cuts import Plan
from edgekit.torch.prune.apply import apply
from edgekit.torch.prune.files import read_plan, save
from edgekit.torch.prune.pruning import Pruned, analyse, cut, prune

__all__ = ["Plan", "Pruned", "analyse", "apply", "cut", "prune", "read_plan", "save"]
