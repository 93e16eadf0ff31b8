"""Cut off what ends the network in our own operators: they run as steps after it, on our kernels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from edgekit.graph import interface, opset
from edgekit.graph.graph import Graph
from edgekit.graph.intake import IntakeLimits
from edgekit.passes.base import Pass, PassResult
from edgekit.spec import Dim, Step, TensorSpec, format_dims
from edgekit.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir


class SplitTailPass(Pass):
    """Operators of domain ``edgekit`` that are steps too, and that only outputs and each other depend on.

    The network then gives what the steps read, and ``results`` stay what they were. Every input stays an
    input of the network, also one that only steps read: the network's inputs and ``Graph.inputs`` are then
    one list, and ``Graph.given`` is the same one until steps before the network make some of them. Operators
    in the middle stay, and the backends' runtimes run them on the same kernels.
    """

    name = "split_tail"

    def _run(self, graph: Graph, target: Target) -> PassResult:
        network = graph.edit()
        tail = _tail(network.graph)
        if not tail:
            return PassResult(graph, False)
        cut = _cut(network.graph, tail)
        if not cut:
            note = "the model is nothing but operators of domain 'edgekit': no network is left to compile"
            return PassResult(graph, False, (note,))
        roles = _name_cut(cut, tail)
        steps = tuple(map(_step, tail))
        kept = {value.name: value for value in network.graph.outputs if value.producer() not in tail}
        outputs = list({**kept, **{value.name: value for value in cut}}.values())
        network.graph.outputs[:] = outputs
        network.graph.remove(tail, safe=True)
        if not any(node.domain == opset.DOMAIN for node in network.graph.all_nodes()):
            network.opset_imports.pop(opset.DOMAIN, None)
        names = ", ".join(step.op for step in steps)
        plural = "operators run as steps" if len(steps) > 1 else "operator runs as a step"
        note = f"{len(steps)} {plural} after the network: {names}"
        split = graph.with_model(
            network,
            f"split_tail: {note}",
            outputs=_state_outputs(network, graph, roles),
            after=(*steps, *graph.after),
            results=graph.results,
        )
        return PassResult(split, True, (note,))

    def ensures(self, graph: Graph, target: Target) -> str | None:
        """Every step finds what it reads, every result is made once."""
        known = {spec.name for spec in (*graph.inputs, *graph.outputs)}
        for step in graph.after:
            lost = set(step.inputs) - known
            if lost or known & set(step.outputs):
                return f"{step} reads {sorted(lost)} which nothing makes, or makes something twice"
            known.update(step.outputs)
        missing = [spec.name for spec in graph.results if spec.name not in known]
        return f"nothing makes {', '.join(missing)}" if missing else None


def _tail(network: ir.Graph) -> list[ir.Node]:
    """The nodes to cut, in the order in which they run."""
    import onnx_ir as ir

    tail: list[ir.Node] = []
    for node in reversed(network):
        operator = opset.OPERATORS.get(node.op_type) if node.domain == opset.DOMAIN else None
        if operator is None or not operator.step:
            continue
        if any(value.dtype == ir.DataType.FLOAT16 for value in (*node.inputs, *node.outputs) if value):
            continue  # steps take float32
        readers = {user for output in node.outputs for user in output.consumers()}
        # A constant cannot be handed to a step; such a node stays.
        plain = all(value is not None and value.const_value is None for value in node.inputs)
        if plain and all(reader in tail for reader in readers):
            tail.append(node)
    return tail[::-1]


def _cut(network: ir.Graph, tail: list[ir.Node]) -> list[ir.Value]:
    """What the tail reads of the network, each once."""
    inputs = set(network.inputs)
    values = [value for node in tail for value in node.inputs if value is not None]
    return list(dict.fromkeys(v for v in values if v not in inputs and v.producer() not in tail))


def _name_cut(cut: Iterable[ir.Value], tail: list[ir.Node]) -> dict[str, str]:
    """Call tensors by their role, ``velocity_vox`` rather than ``mul_12``, and return the role of each name.

    A tensor that was an output before keeps its name.
    """
    graph = tail[0].graph
    assert graph is not None
    taken = {value.name for node in graph for value in node.outputs} | {v.name for v in graph.inputs}
    roles = {}
    for value in cut:
        node, index = next((use.node, use.idx) for use in value.uses() if use.node in tail)
        role = opset.OPERATORS[node.op_type].inputs[index]
        if not value.is_graph_output() and role not in taken:
            taken.add(role)
            value.name = role
        roles[str(value.name)] = role
    return roles


def _step(node: ir.Node) -> Step:
    operator = opset.OPERATORS[node.op_type]
    return Step(
        operator.step,
        tuple(str(value.name) for value in node.inputs if value is not None),
        tuple(str(value.name) for value in node.outputs),
        operator.options({name: attribute.value for name, attribute in node.attributes.items()}),
    )


def _state_outputs(network: ir.Model, graph: Graph, roles: dict[str, str]) -> tuple[TensorSpec, ...]:
    """Contracts of the new outputs, also written into the network; old outputs keep theirs."""
    import onnx_ir as ir

    before = {spec.name: spec for spec in graph.outputs}
    inputs = [spec.name for spec in graph.inputs]
    shapes = {spec.name: format_dims(spec.dims) for spec in graph.inputs}
    proto = ir.serde.serialize_model(network)
    found = interface.derive(proto, inputs, shapes, IntakeLimits(), "network").outputs
    names = {
        (axis, length): str(value.shape[axis])
        for value, spec in zip(network.graph.inputs, graph.inputs, strict=True)
        for axis, length in enumerate(spec.dims)
        if isinstance(length, Dim) and value.shape is not None
    }
    specs = []
    for value, spec in zip(network.graph.outputs, found, strict=True):
        role = roles.get(spec.name, "")
        new = before.get(spec.name) or replace(spec, quantity=role if role.endswith("_vox") else "")
        value.dtype = ir.DataType.from_numpy(np.dtype(new.dtype))
        value.shape = ir.Shape(
            d if isinstance(d, int) else names.get((axis, d), f"{spec.name}_{axis}")
            for axis, d in enumerate(new.dims)
        )
        specs.append(new)
    return tuple(specs)
