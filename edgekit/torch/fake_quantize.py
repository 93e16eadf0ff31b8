"""A network computed as its INT8 graph would compute it, with gradients that pass through the rounding.

    quantization = FakeQuantization(network, QuantizationRecipe())
    with quantization.observed():
        for image in images:
            network(image)
    quantization.settle()
    with quantization.applied():
        loss = ...network(image)...

What is rounded is what the quantize pass (:mod:`edgekit.passes.quantize`) puts QuantizeLinear and
DequantizeLinear around: weights, symmetrically, an output at a time; and per tensor what convolutions,
transposed convolutions and products with weights read. A tensor that several layers read has one range.
Where it is added to something as well, as in a residual block, its rounded form is. What pools and
concatenations pass on has one range on both sides of them. Calls are followed as they run, so it does not
matter how a module is written; the products inside of torch's own attention stay float.

Batch norms need not be folded first. Their factor for a channel multiplies the channel's weights and its
range alike, so the folded weights are rounded to the very same integers. That holds wherever an output has
a range of its own, which is everywhere but in grouped transposed convolutions.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from edgekit.errors import ModelError, did_you_mean
from edgekit.recovery import QuantizationRecipe
from edgekit.torch.rounding import LARGEST, UNSIGNED, rounded, rounded_weight

__all__ = ["FakeQuantization"]

_LAYERS = {"linear": 0} | {
    f"conv{way}{axes}d": axis for way, axis in (("", 0), ("_transpose", 1)) for axes in (1, 2, 3)
}
"""Operations with weights, and the axis of the weight's output channels."""

# Sums and products read what is rounded for a layer anyway. In place, what is changed has to stay itself.
_SUMS = {"add": (0, 1), "mul": (0, 1), "add_": (1,), "mul_": (1,)}
# What makes numbers that cannot be negative, and what makes such numbers of such numbers.
_NON_NEGATIVE = frozenset(
    ("relu", "relu_", "relu6", "sigmoid", "softmax", "abs", "exp", "sqrt", "softplus", "hardsigmoid")
)
# Operations whose results are numbers of their inputs, or zero.
_CONCATENATIONS = ("cat", "concat", "concatenate")
_PASSING = frozenset(
    (
        *(*_CONCATENATIONS, "max_pool1d", "max_pool2d", "max_pool3d", "interpolate", "pad", "dropout"),
        *("reshape", "view", "flatten", "permute", "transpose", "squeeze", "unsqueeze", "__getitem__"),
        *("contiguous", "clone", "expand", "repeat", "pixel_shuffle", "pixel_unshuffle"),
    )
)
_KEEPS_THE_SIGN = _PASSING | frozenset(
    (
        *("add", "mul", "mean", "leaky_relu"),
        *(f"{kind}_pool{axes}d" for kind in ("avg", "adaptive_max", "adaptive_avg") for axes in (1, 2, 3)),
    )
)
# A concatenation has one range. A part that others read too keeps its own where it would lose more than this.
_COARSEST = 2.0
_VALUES_PER_CALL = 4096
_CANDIDATES = 96
_SMALLEST = 1e-12


# A tensor as long as it lives and nothing changes it in place.
_Key = tuple[int, int]


@dataclass(frozen=True)
class _Link:
    """A tensor that holds numbers of another one: both keys, largest absolute values, whether it joins."""

    result: _Key
    source: _Key
    largest: tuple[float, float]
    joins: bool


@dataclass(eq=False)
class _Site:
    """One tensor that is rounded.

    Attributes:
        name: Of the layer that reads it first.
        key: Which tensor it is, in the first call.
        positive: Whether the operations that make it leave no other way.
        high: Largest absolute value seen.
        unsigned: Whether its integers are.
        values: Some of the values seen; ``None`` where nothing was since the last time.
        leader: The site whose range it has; ``None`` before that is known.
    """

    name: str
    key: _Key
    positive: bool
    high: float = -math.inf
    unsigned: bool = False
    values: list[Tensor] | None = None
    leader: _Site | None = None


@dataclass(frozen=True)
class _Call:
    """One layer as it ran: its operation, its path, and the site of what it read, if that is rounded."""

    operation: str
    layer: str
    site: int | None


def _leader(site: _Site) -> _Site:
    return site.leader or site


def _levels(site: _Site) -> int:
    return UNSIGNED if site.unsigned else LARGEST


class FakeQuantization:
    """The rounding of one module.

    Args:
        module: It stays as it is; its parameters keep their names and their full precision.
        recipe: What is rounded.

    Raises:
        ModelError: A layer that is to stay float does not exist.
    """

    def __init__(self, module: nn.Module, recipe: QuantizationRecipe = QuantizationRecipe()) -> None:
        self.module, self.recipe = module, recipe
        paths = [path for path, _ in module.named_modules()]
        for path in recipe.keep:
            if path not in paths:
                near = did_you_mean(path, paths)
                raise ModelError(
                    f"no layer {path!r} to keep float",
                    where="keep",
                    hint=f"did you mean {near!r}?" if near else None,
                )
        self.log_scales: dict[str, Tensor] = {}
        self._sites: list[_Site] = []
        self._calls: list[_Call] = []
        self._links: list[_Link] = []

    @property
    def layers(self) -> list[str]:
        """Paths of the layers whose weights are rounded, in the order in which they ran."""
        return list(dict.fromkeys(call.layer for call in self._calls if call.site is not None))

    @contextlib.contextmanager
    def observed(self) -> Iterator[None]:
        """Inside, calls of the module are computed in full precision and their values noted."""
        yield from self._followed(self._observe, lambda weight, axis: weight)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, a call of the module is computed with rounded weights and activations.

        Raises:
            ModelError: Nothing was observed, or the module does other operations than it did then.
        """
        if not self.log_scales:
            raise ModelError("ranges want to be observed and settled first", where=self._where)
        yield from self._followed(self._round, self._round_weight)

    def settle(self) -> None:
        """Set the ranges from what was observed since the last time.

        Raises:
            ModelError: The module has nothing that could be rounded.
        """
        if not self._calls:
            raise ModelError(
                "nothing to quantize: the module has no convolution and no matrix product with weights",
                where=self._where,
            )
        if not self.log_scales:
            self._find_families()
        families: dict[str, list[_Site]] = {}
        for site in self._sites:
            if site.values is not None:
                families.setdefault(_leader(site).name, []).append(site)
        for name, family in families.items():
            magnitude = max(map(self._magnitude, family))
            scale = torch.tensor(math.log(magnitude / _levels(family[0])))
            known = self.log_scales.get(name)
            if known is None:
                self.log_scales[name] = scale.requires_grad_(self.recipe.ranges == "learned")
            else:
                with torch.no_grad():
                    known.copy_(scale)
            for site in family:
                site.values = None

    def _find_families(self) -> None:
        """Let tensors that hold the same numbers have one range, and one type."""
        parent: dict[_Key, _Key] = {}

        def root(key: _Key) -> _Key:
            while parent.setdefault(key, key) != key:
                key = parent[key]
            return key

        readers = Counter(link.source for link in self._links) + Counter(site.key for site in self._sites)
        for link in self._links:
            result, source = link.largest
            if not (link.joins and readers[link.source] > 1 and _COARSEST * source < result):
                parent[root(link.source)] = root(link.result)
        leaders: dict[_Key, _Site] = {}
        for site in self._sites:
            site.leader = leaders.setdefault(root(site.key), site)
        for leader in leaders.values():
            family = [site for site in self._sites if site.leader is leader]
            positive = all(site.positive for site in family)
            for site in family:
                site.unsigned = positive and self.recipe.activation != "int8"
        self._links.clear()

    def magnitudes(self) -> dict[str, float]:
        """Largest absolute value that is not clipped, by the layer that reads it."""
        found = {}
        for call in self._calls:
            if call.site is not None:
                site = self._sites[call.site]
                found[call.layer] = float(self.log_scales[_leader(site).name].detach().exp()) * _levels(site)
        return found

    @property
    def _where(self) -> str:
        return type(self.module).__qualname__

    # --- following a call ---------------------------------------------------------------------------------

    def _followed(
        self, activation: Callable[[Tensor, _Site], Tensor], weight: Callable[[Tensor, int], Tensor]
    ) -> Iterator[None]:
        mode = _Following(self, activation, weight)

        def enter(*call: Any) -> None:
            mode.restart()
            mode.__enter__()  # type: ignore[no-untyped-call]

        def leave(*call: Any) -> None:
            mode.__exit__(None, None, None)  # type: ignore[no-untyped-call]

        handles = (
            self.module.register_forward_pre_hook(enter),
            self.module.register_forward_hook(leave, always_call=True),
        )
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _names(self) -> dict[int, str]:
        named = self.module.named_parameters(remove_duplicate=False)
        return {id(parameter): name.rpartition(".")[0] or self._where for name, parameter in named}

    def _is_kept(self, layer: str) -> bool:
        return any(layer == path or layer.startswith(f"{path}.") for path in self.recipe.keep)

    def _observe(self, tensor: Tensor, site: _Site) -> Tensor:
        values = tensor.detach().reshape(-1)
        high = float(values.abs().max())
        if not math.isfinite(high):
            raise ModelError("want finite activations, got NaN or infinity", where=f"input of {site.name}")
        if site.values is None:
            site.values, site.high = [], -math.inf
        site.high = max(site.high, high)
        every = -(-len(values) // _VALUES_PER_CALL)
        site.values.append(values[::every].clone())
        return tensor

    def _round(self, tensor: Tensor, site: _Site) -> Tensor:
        lowest, highest = (0, UNSIGNED) if site.unsigned else (-LARGEST - 1, LARGEST)
        return rounded(tensor, self.log_scales[_leader(site).name], lowest, highest)

    def _round_weight(self, weight: Tensor, axis: int) -> Tensor:
        return rounded_weight(weight, axis, self.recipe.weight_bits)

    def _magnitude(self, site: _Site) -> float:
        """The clipping value: of some candidates, the one with the smallest squared error."""
        largest = max(site.high, _SMALLEST)
        if self.recipe.method == "minmax" or not site.values:
            return largest
        values = torch.cat(site.values).float()
        levels = _levels(site)
        lowest = 0 if site.unsigned else -LARGEST - 1
        errors = []
        for index in range(1, _CANDIDATES + 1):
            scale = largest * index / _CANDIDATES / levels
            back = torch.fake_quantize_per_tensor_affine(values, scale, 0, lowest, levels)
            errors.append(float((back - values).square().mean()))
        return largest * (1 + min(range(_CANDIDATES), key=errors.__getitem__)) / _CANDIDATES


class _Following(TorchFunctionMode):
    """Replaces operands of the operations that are rounded, in the order in which they run."""

    def __init__(
        self,
        owner: FakeQuantization,
        activation: Callable[[Tensor, _Site], Tensor],
        weight: Callable[[Tensor, int], Tensor],
    ) -> None:
        super().__init__()
        self._owner, self._activation, self._weight = owner, activation, weight
        self._layer_of = owner._names()
        self._learning = not owner._calls
        self._index = 0
        self.restart()

    def restart(self) -> None:
        """A call of the module begins."""
        self._learning = self._learning and self._index == 0
        self._index = 0
        # Holding on to a tensor keeps its identity from being given to another one.
        self._done: dict[_Key, tuple[Tensor, Tensor]] = {}
        self._site_of: dict[_Key, int] = {}
        self._positive: dict[_Key, Tensor] = {}
        self._alive: list[Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        operation = getattr(func, "__name__", "")
        if operation in _LAYERS:
            return func(*self._layer(operation, args, kwargs), **kwargs)
        if operation in _SUMS:
            args = tuple(self._summand(a) if i in _SUMS[operation] else a for i, a in enumerate(args))
        result = func(*args, **kwargs)
        if self._learning and isinstance(result, Tensor) and result.is_floating_point():
            self._learn(operation, args, kwargs, result)
        return result

    def _learn(
        self, operation: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], result: Tensor
    ) -> None:
        """Note what is known of a result without looking at what it is used for."""
        parts = args[0] if args and isinstance(args[0], (tuple, list)) else args
        sources = [part for part in parts if isinstance(part, Tensor) and part is not result]
        keeps = operation in _KEEPS_THE_SIGN and all(_key(source) in self._positive for source in sources)
        if operation in _NON_NEGATIVE or (sources and keeps):
            self._positive[_key(result)] = result
        if operation in _PASSING and _passes(operation, args, kwargs):
            for source in sources:
                self._alive += (source, result)
                largest = tuple(float(t.detach().abs().max()) if t.numel() else 0.0 for t in (result, source))
                joins = operation in _CONCATENATIONS
                self._owner._links.append(_Link(_key(result), _key(source), (largest[0], largest[1]), joins))

    def _layer(self, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """The operands with input and weight replaced."""
        given = [*args, *(kwargs.pop(key) for key in ("input", "weight")[len(args) :] if key in kwargs)]
        layer = self._layer_of.get(id(given[1]), f"{operation}_{self._index}")
        site = self._next(operation, layer, given[0])
        if site is None:
            return tuple(given)
        self._site_of[_key(given[0])] = site
        weight = self._weight(given[1], _LAYERS[operation])
        return (self._replaced(given[0], site), weight, *given[2:])

    def _summand(self, operand: Any) -> Any:
        is_rounded = isinstance(operand, Tensor) and _key(operand) in self._site_of
        return self._replaced(operand, self._site_of[_key(operand)]) if is_rounded else operand

    def _next(self, operation: str, layer: str, tensor: Tensor) -> int | None:
        """The site of what the next layer reads."""
        owner = self._owner
        if self._learning:
            site = None if owner._is_kept(layer) else self._site(tensor, layer)
            owner._calls.append(_Call(operation, layer, site))
        calls, index = owner._calls, self._index
        self._index += 1
        if index >= len(calls) or (calls[index].operation, calls[index].layer) != (operation, layer):
            raise ModelError(
                f"the module wants to do the same operations on every input: {operation} of {layer} was not "
                "what ran before",
                where=owner._where,
            )
        return calls[index].site

    def _site(self, tensor: Tensor, layer: str) -> int:
        """The range of a tensor; one that was rounded before in this call has one already."""
        if _key(tensor) in self._site_of:
            return self._site_of[_key(tensor)]
        sites = self._owner._sites
        taken = {site.name for site in sites}
        name = layer
        while name in taken:
            name += "'"
        sites.append(_Site(name, _key(tensor), _key(tensor) in self._positive))
        return len(sites) - 1

    def _replaced(self, tensor: Tensor, site: int) -> Tensor:
        key = _key(tensor)
        if key not in self._done:
            self._done[key] = (tensor, self._activation(tensor, self._owner._sites[site]))
        return self._done[key][1]


def _passes(operation: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    """Whether an operation's options leave numbers as they are."""
    if operation == "interpolate":
        return bool((args[3] if len(args) > 3 else kwargs.get("mode", "nearest")) == "nearest")
    if operation == "pad":
        mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
        return bool(mode != "constant" or not (args[3] if len(args) > 3 else kwargs.get("value")))
    return True


def _key(tensor: Tensor) -> _Key:
    """What a tensor is as long as it lives and nothing changes it in place."""
    return id(tensor), tensor._version
