"""One run of a network that tells which channels go together.

The network runs as it is, on real tensors, below everything that Python code can do to them: what counts is
the operators that are called. Torch-Pruning traces the autograd graph instead and takes what it does not know
for element-wise; networks that pad, tile, split or shuffle channels come out broken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import edgekit.torch.prune.layers  # noqa: F401 - enters its rules into the table
from edgekit.errors import ModelError
from edgekit.torch.prune.atoms import Atoms, Axis, Ids, Reason
from edgekit.torch.prune.labels import Labels
from edgekit.torch.prune.rules import RULES, Call, Findings, pointwise, unknown
from edgekit.torch.source import reason

_LABELS = "_edgekit_labels"
# Normalizations that may have no parameters and yet count their channels.
COUNTING = (nn.modules.batchnorm._NormBase, nn.GroupNorm)


@dataclass
class Trace:
    """What one run told.

    Attributes:
        atoms: The classes, and why some must stay.
        findings: The work of the operators, and what is special about some atoms.
        counted: Atoms of the channels of each normalization without parameters, by path.
        used: Atoms that each module works with itself, its children left out, by path.
        shapes: Shapes of the outputs.
    """

    atoms: Atoms = field(default_factory=Atoms)
    findings: Findings = field(default_factory=Findings)
    counted: dict[str, Ids] = field(default_factory=dict)
    used: dict[str, list[Ids]] = field(default_factory=dict)
    shapes: tuple[tuple[int, ...], ...] = ()


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All tensors in nested lists, tuples and dictionaries, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from tensors_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_of(item)


def trace(module: nn.Module, run: Callable[[], Any]) -> Trace:
    """Run a network and tell which of its channels go together.

    Args:
        module: The network, in evaluation mode.
        run: Calls it once and returns what it gives.

    Raises:
        ModelError: The network itself fails.
    """
    found = Trace()
    mode = _Mode(module, found)
    with contextlib.ExitStack() as stack:
        for path, part in module.named_modules():
            stack.enter_context(mode.scope(path, part))
        stack.enter_context(plain_operators())
        stack.enter_context(torch.no_grad())
        try:
            with mode:
                outputs = list(tensors_of(run()))
        except Exception as error:
            raise ModelError(
                f"the module fails on the samples: {reason(error)}", where=type(module).__qualname__
            ) from error
    for tensor in outputs:
        found.atoms.fix(mode.labels_of(tensor).ids, Reason("", "it is what the network gives"))
    found.shapes = tuple(tuple(tensor.shape) for tensor in outputs)
    return found


@contextlib.contextmanager
def plain_operators() -> Iterator[None]:
    """Attention and torch's own transformer layers step by step, for what looks at operators."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Mode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator that runs, and keeps the labels of what it returns on the tensors themselves."""

    def __init__(self, module: nn.Module, found: Trace) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._found = found
        self._scopes = [""]
        state = dict(module.named_parameters()) | dict(module.named_buffers())
        self._state = {id(tensor): (name, tensor) for name, tensor in state.items()}
        self._labels_of_state: dict[int, Labels] = {}

    def labels_of(self, tensor: Tensor) -> Labels:
        """The labels of a tensor; a parameter gets atoms for each of its axes at its first use."""
        if id(tensor) in self._state:
            if id(tensor) not in self._labels_of_state:
                self._labels_of_state[id(tensor)] = self._of_state(*self._state[id(tensor)])
            return self._labels_of_state[id(tensor)]
        found = getattr(tensor, _LABELS, None)
        return found if isinstance(found, Labels) else Labels(tuple(tensor.shape))

    def _of_state(self, name: str, tensor: Tensor) -> Labels:
        parts = []
        for axis, length in enumerate(tensor.shape):
            if length > 1:
                made: Axis = self._found.atoms.add(name, axis, length)
                parts.append(made.ids.reshape([-1 if a == axis else 1 for a in range(tensor.dim())]))
        return Labels(tuple(tensor.shape), tuple(parts))

    @contextlib.contextmanager
    def scope(self, path: str, module: nn.Module) -> Iterator[None]:
        """While this is open, note when the module is called."""

        def enter(module: nn.Module, args: tuple[Any, ...]) -> None:
            self._scopes.append(path)
            if isinstance(module, COUNTING) and args and isinstance(args[0], Tensor):
                self._found.counted[path] = self.labels_of(args[0]).along(1)

        def leave(module: nn.Module, args: Any, result: Any) -> None:
            self._scopes.pop()

        handles = (
            module.register_forward_pre_hook(enter, prepend=True),
            module.register_forward_hook(leave, always_call=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        space, name = func.overloadpacket._qualified_op_name.split("::")
        name = name if space == "aten" else f"{space}.{name}"
        given = {}
        for index, argument in enumerate(func._schema.arguments):
            given[argument.name] = (
                args[index] if index < len(args) else kwargs.get(argument.name, argument.default_value)
            )
        where = self._scopes[-1]
        call = Call(name, where, given, result, self._found.atoms, self._found.findings, self.labels_of)
        # Numbers and masks are no channels; where nothing goes in, nothing comes out.
        inputs = [self.labels_of(tensor) for tensor in call.tensors()]
        if not any(label.parts for label in inputs):
            return result
        self._found.used.setdefault(where, []).extend(label.ids for label in inputs if label.parts)
        rule = RULES.get(name) or (pointwise if torch.Tag.pointwise in func.tags else unknown)
        labels = rule(call)
        results = result if isinstance(result, (tuple, list)) else [result]
        each = [labels] * len(results) if isinstance(labels, Labels) else labels
        for tensor, label in zip(results, each, strict=False):
            if isinstance(tensor, Tensor) and id(tensor) not in self._state:
                fits = label.shape == tuple(tensor.shape)
                setattr(tensor, _LABELS, label if fits else Labels(tuple(tensor.shape)))
        return result
