"""The plan of a network: which operations become one kernel, and how every value lies in memory.

Operations with a family become kernels; the element-wise functions behind one go into it, as long as nobody
else wants the value before them. What no family takes stays an operation of Relax's and gets the values in
ONNX's order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit.backends.tvm.elementwise import Step
from edgekit.backends.tvm.families import CHAIN, FAMILIES, Family
from edgekit.backends.tvm.functions import DEQUANTIZE, FUNCTIONS, QUANTIZE
from edgekit.backends.tvm.graph import Network, Node, Value
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import PLAIN, Halo, Layout, Scale


@dataclass(frozen=True)
class Link:
    """A function of a chain.

    Attributes:
        name: In :data:`edgekit.backends.tvm.functions.FUNCTIONS`.
        parameters: Numbers that follow the operands.
        operands: Values.
        result: What it gives.
    """

    name: str
    parameters: tuple[float, ...]
    operands: tuple[Value, ...]
    result: Value


@dataclass(eq=False)
class Group:
    """Nodes that are computed together.

    Attributes:
        family: Who writes the kernel; ``None`` leaves the one node to TVM.
        problem: What the family is asked for.
        anchor: The node that the family computes; ``None`` for a chain alone.
        source: The values that the anchor reads, or the chain's first one.
        links: The chain.
        scales: What bytes stand for that the anchor dequantizes as it reads them, by place among the sources.
    """

    family: Family | None
    problem: Any
    anchor: Node | None
    source: list[Value]
    links: list[Link] = field(default_factory=list)
    scales: dict[int, Scale] = field(default_factory=dict)

    def fill(self, place: int) -> int:
        """What stands for zero around a source.

        Args:
            place: Of the source.
        """
        assert self.family is not None  # asked of kernels of ours alone
        scale = self.scales.get(place)
        return scale.zero_point if scale else self.family.fill(self.problem)

    @property
    def first(self) -> Value:
        """What the chain begins with."""
        return self.anchor.output if self.anchor else self.source[0]

    @property
    def output(self) -> Value:
        """The result."""
        return self.links[-1].result if self.links else self.first

    def extras(self) -> list[Value]:
        """Values that the chain reads beside its first one; single numbers are part of the code."""
        inside = {id(self.first), *(id(link.result) for link in self.links)}
        found: dict[int, Value] = {}
        for value in (value for link in self.links for value in link.operands):
            if id(value) not in inside and _number(value) is None:
                found.setdefault(id(value), value)
        return list(found.values())

    def chain(self) -> tuple[Step, ...]:
        """The functions, as a kernel computes them."""
        known = [self.first, *self.extras(), *(link.result for link in self.links)]
        numbers = {id(value): place for place, value in enumerate(known)}
        steps = []
        for link in self.links:
            operands = [numbers.get(id(value), _number(value)) for value in link.operands]
            steps.append(Step(link.name, tuple(operands), link.parameters))  # type: ignore[arg-type]
        return tuple(steps)


@dataclass(frozen=True)
class Plan:
    """The plan.

    Attributes:
        groups: In the order in which they run.
        layouts: Of the values that kernels of ours write.
    """

    groups: list[Group]
    layouts: dict[int, Layout]

    def layout(self, value: Value) -> Layout:
        """How a value lies in memory."""
        return self.layouts.get(id(value), PLAIN)


def plan(network: Network, processor: Processor) -> Plan:
    """Make the plan of a network."""
    groups = _grouped(network, processor)
    return Plan(groups, _laid_out(groups, processor))


def _grouped(network: Network, processor: Processor) -> list[Group]:
    order: list[Group] = []
    of: dict[int, Group] = {}
    # Dequantizations: each is done by those who read it, or for those who cannot, by itself.
    waiting: dict[int, Node] = {}
    done_by_readers: set[int] = set()

    def place(node: Node) -> None:
        """Put a node into a group, together with the dequantizations of what it reads."""
        link = _link(node)
        before = [waiting[id(value)] for value in dict.fromkeys(node.inputs) if id(value) in waiting]
        group = _joined(node, before, of) if link and id(node.output) not in done_by_readers else None
        if group is None:
            group = _new(node, before, link, processor)
            for other in before:
                if all(value is not other.output for value in group.source):
                    done_by_readers.add(id(other.output))
                elif id(other.output) not in of:
                    place(other)
        else:
            done_by_readers.update(id(other.output) for other in before)
            # It runs where its last node stands: all that it reads is there by then.
            order.remove(group)
            waiting.pop(id(node.output), None)
        order.append(group)
        if link and group.family is not None:
            there = {id(other.result) for other in group.links}
            links = [*map(_link, before), link]
            group.links += [other for other in links if other and id(other.result) not in there]
        of[id(node.output)] = group

    for node in network.nodes:
        if node.operator == DEQUANTIZE and not node.output.is_output:
            waiting[id(node.output)] = node
        else:
            place(node)
    return order


def _number(value: Value) -> float | None:
    """The value, where it is one known number."""
    known = value.constant
    return float(known.reshape(())) if known is not None and known.size == 1 else None


def _link(node: Node) -> Link | None:
    """A node as a function of a chain; ``None`` if it is none."""
    values = [*node.inputs, node.output]
    if node.operator not in FUNCTIONS or any(v.shape is None for v in values):
        return None
    if node.operator not in (QUANTIZE, DEQUANTIZE) and any(v.dtype != "float32" for v in values):
        return None
    parameters: tuple[float, ...] = tuple(node.attributes.values())
    operands = list(node.inputs)
    if node.operator == "relax.nn.leakyrelu":
        parameters = (float(node.call.attrs.alpha),)
    elif node.operator == "relax.nn.prelu":
        operands[1] = _along_axis(node)
    elif node.operator == "relax.nn.softplus":
        attributes = node.call.attrs
        if (float(attributes.beta), float(attributes.threshold)) != (1.0, 20.0):
            return None
    elif node.operator == "relax.clip":
        bounds = [getattr(bound, "value", None) for bound in node.call.args[1:]]
        if not all(isinstance(bound, (int, float)) for bound in bounds):
            return None
        parameters = tuple(map(float, bounds))  # type: ignore[arg-type]
    return Link(node.operator, parameters, tuple(operands), node.output)


def _along_axis(node: Node) -> Value:
    """The slopes of a PReLU in a shape that broadcasts to its input's."""
    data, slope = node.inputs
    axis = int(node.call.attrs.axis) % len(data.lengths)
    if len(slope.lengths) != 1 or slope.lengths == (1,) or slope.constant is None:
        return slope
    shape = (-1, *(1,) * (len(data.lengths) - axis - 1))
    numbers = slope.constant.reshape(shape)
    return Value(tuple(numbers.shape), slope.dtype, numbers)


def _joined(node: Node, before: Sequence[Node], of: dict[int, Group]) -> Group | None:
    """The group whose result nobody but this function reads: the latest, where there are several."""
    own = {id(node), *(id(other) for other in before if all(user is node for user in other.output.consumers))}
    for value in sorted(_roots(node, before), key=lambda v: -_size(v)):
        group = of.get(id(value))
        if group is None or group.family is None or value.is_output:
            continue
        if value.shape == node.output.shape and all(id(user) in own for user in value.consumers):
            return group
    return None


def _roots(node: Node, before: Sequence[Node]) -> list[Value]:
    """What a node reads together with the dequantizations before it."""
    bytes_of = {id(other.output): other.inputs[0] for other in before}
    return [bytes_of.get(id(value), value) for value in node.inputs]


def _size(value: Value) -> int:
    return math.prod(value.shape or (0,))


def _new(node: Node, before: Sequence[Node], link: Link | None, processor: Processor) -> Group:
    flowing = [value for value in _roots(node, before) if value.constant is None]
    if link and flowing:
        full = [value for value in flowing if value.shape == node.output.shape]
        return Group(CHAIN, (), None, [(full or flowing)[0]])
    tensors = [*node.inputs, node.output]
    if all(value.shape is not None for value in tensors):
        for family in FAMILIES.get(node.operator, ()):
            problem = family.problem(node, processor) if family.takes(node) else None
            if problem is not None:
                return _anchored(family, problem, node, before)
    return Group(None, None, node, [value for value in node.inputs if value.constant is None])


def _anchored(family: Family, problem: Any, node: Node, before: Sequence[Node]) -> Group:
    """The group of a node, which reads bytes instead of what they stand for where its family can."""
    source = node.inputs[: family.reads(node)]
    group = Group(family, problem, node, list(source))
    dequantized = {id(other.output): other for other in before} if family.dequantizes(problem) else {}
    for place, value in enumerate(source):
        if id(value) in dequantized:
            other = dequantized[id(value)]
            group.source[place] = other.inputs[0]
            group.scales[place] = Scale(other.attributes["scale"], int(other.attributes["zero_point"]))
    return group


def _laid_out(groups: list[Group], processor: Processor) -> dict[int, Layout]:
    """Layouts of the results of our kernels."""
    blocks: dict[int, int] = {}
    halos: dict[int, Halo] = {}
    fills: dict[int, int] = {}
    read: dict[int, list[Group]] = {}
    wanted = {
        id(value): group.family.block(group.problem, value.lengths[1], processor)
        for group in groups
        for value in group.source
        if value.dtype != "float32" and group.family and group.family.reads_blocks
    }
    for group in groups:
        for value in [*group.source, *group.extras()]:
            read.setdefault(id(value), []).append(group)
        if group.family is None:
            continue
        blocks[id(group.output)] = _block(group, blocks, wanted.get(id(group.output)), processor)
        if group.anchor:
            halo = group.family.halo(group.problem, group.anchor)
            for place, value in enumerate(group.source if any(map(any, halo)) else ()):
                halos[id(value)] = _wider(halos.get(id(value), ()), halo)
                fills[id(value)] = group.fill(place)
    layouts = {}
    for group in groups:
        if group.family is None:
            continue
        value = group.output
        ours = group.anchor or any(reader.family for reader in read.get(id(value), ()))
        # What only others read is written in their order at once, where the kernel can.
        key = id(value)
        layouts[key] = Layout(blocks[key], halos.get(key, ()), fills.get(key, 0)) if ours else PLAIN
    return layouts


def _block(group: Group, blocks: dict[int, int], wanted: int | None, processor: Processor) -> int:
    shape = group.output.lengths
    assert group.family is not None  # asked of kernels of ours alone
    if len(shape) < 3 or group.family.blocked is False:
        return 1
    own = processor.block_for(shape[1])
    if wanted and group.family is CHAIN:
        return wanted
    if group.family.blocked:
        return own
    return own if any(blocks.get(id(value), 1) > 1 for value in [*group.source, *group.extras()]) else 1


def _wider(one: Halo, other: Halo) -> Halo:
    if not one or not other:
        return one or other
    return tuple((max(a, c), max(b, d)) for (a, b), (c, d) in zip(one, other, strict=True))
