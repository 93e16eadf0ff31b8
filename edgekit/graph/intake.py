"""What a model file must be before any library is let near it.

Everything here is linear in the number of nodes, allocates little and trusts nothing: onnx's own checker and
shape inference come after it, and bombs are found by arithmetic on shapes (:mod:`edgekit.graph.shapes`), not
by running into them. For files from elsewhere it runs in a child process (:mod:`edgekit.graph.load`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import GraphError, UnsupportedError, did_you_mean
from edgekit.graph import external, opset
from edgekit.graph.wire import check_text

if TYPE_CHECKING:
    import onnx

OLDEST_OPSET = 7
_OLDEST_IR = 3


@dataclass(frozen=True)
class IntakeLimits:
    """How large a model may be.

    Attributes:
        file_bytes: Model file and external data together; ONNX itself ends at 2 GiB.
        structure_bytes: Of the model file, everything but the numbers of tensors.
        tensor_bytes: Each tensor that exists while the network runs, at the largest shapes.
        constant_bytes: Each tensor that depends on no input: runtimes compute these when they load.
        constants_bytes: All of these together.
        nodes: Nodes, those of functions counted once for each call.
        nesting: Depth of graphs inside nodes.
        rank: Axes of a tensor.
        loop_trips: Runs of a loop's body, nested loops multiplied.
    """

    file_bytes: int = (2 << 30) - 1
    structure_bytes: int = 32 << 20
    tensor_bytes: int = 8 << 30
    constant_bytes: int = 256 << 20
    constants_bytes: int = 1 << 30
    nodes: int = 20_000
    nesting: int = 8
    rank: int = 16
    loop_trips: int = 65_536


# Bits of an element, by TensorProto.DataType; strings, complex numbers and exotic formats are not here.
_BITS = {
    1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64, 16: 16,
    17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4,
}  # fmt: skip


def element_bits(elem_type: int) -> int | None:
    """Bits of one element, or ``None`` for a type that is not taken in."""
    return _BITS.get(elem_type)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes that type and shape of a checked tensor ask for."""
    return int(math.prod(tensor.dims) * _BITS[tensor.data_type] + 7) // 8


def all_tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Every tensor with values: initializers and attributes, inner graphs included."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            for inner in inner_graphs(attribute):
                yield from all_tensors(inner)


def describe(node: onnx.NodeProto) -> str:
    """``node 'name' (Conv)``."""
    return f"node {node.name[:80]!r} ({node.op_type[:60]})" if node.name else f"a {node.op_type[:60]} node"


def check(model: onnx.ModelProto, folder: Path, limits: IntakeLimits, where: str) -> None:
    """Refuse a malformed, unknown, unsafe or oversized model.

    Args:
        model: Without functions, see :func:`edgekit.graph.functions.inline`.
        folder: Where its external data lies.
        limits: How large it may be.
        where: Name of the file, for messages.

    Raises:
        GraphError: Malformed, unsafe or over a limit.
        UnsupportedError: Operators, domains, versions or types that are not known.
    """
    versions = _check_header(model, where)
    _Walk(folder, limits, versions, where).check_graph(model.graph, frozenset(), 0)
    if not model.graph.output:
        raise GraphError("the graph has no outputs", where=where)


# Weights with more elements than this say nothing about shapes.
_SMALL = 1024


def drop_large_weights(model: onnx.ModelProto, folder: Path, where: str) -> None:
    """Turn large weights of a checked model into inputs, so that what follows costs no memory for them.

    Small ones that lie in other files are read: shapes can depend on them.
    """
    from onnx import helper

    graph = model.graph
    inputs = {value.name for value in graph.input}
    large = [tensor for tensor in graph.initializer if math.prod(tensor.dims) > _SMALL]
    constants = [node for node in graph.node if _is_large_constant(node)]
    for name, tensor in (
        *((t.name, t) for t in large),
        *((n.output[0], n.attribute[0].t) for n in constants),
    ):
        if name not in inputs:
            graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, list(tensor.dims)))
    _remove(graph.initializer, large)
    _remove(graph.node, constants)
    external.embed(((t, tensor_bytes(t)) for t in all_tensors(graph)), folder, where=where)


def _is_large_constant(node: onnx.NodeProto) -> bool:
    return (
        node.op_type == "Constant"
        and not node.domain
        and len(node.attribute) == 1
        and node.attribute[0].HasField("t")
        and math.prod(node.attribute[0].t.dims) > _SMALL
    )


def _remove(field: Any, entries: list[Any]) -> None:
    """Take entries out of a repeated field in one go; one by one would take the square of the time."""
    if entries:
        gone = {id(entry) for entry in entries}
        kept = [entry for entry in field if id(entry) not in gone]
        del field[:]
        field.extend(kept)


def check_with_onnx(model: onnx.ModelProto, where: str) -> None:
    """Have onnx check what its schemas say: numbers of inputs, names and types of attributes.

    Raises:
        GraphError: It refuses the model.
    """
    from onnx import TensorProto, checker

    # The checker wants types and shapes of inputs and outputs. Ours come from the user and from inference.
    for value in model.graph.output:
        value.type.tensor_type.shape.SetInParent()
        value.type.tensor_type.elem_type = value.type.tensor_type.elem_type or TensorProto.FLOAT
    open_inputs = [v.type.tensor_type for v in model.graph.input if v.type.HasField("tensor_type")]
    open_inputs = [tensor for tensor in open_inputs if not tensor.HasField("shape")]
    for tensor in open_inputs:
        tensor.shape.SetInParent()
    try:
        checker.check_model(model)
    except Exception as error:  # noqa: BLE001 - ValidationError, but also bare RuntimeError and others
        raise GraphError(f"not a valid ONNX model: {first_line(error)}", where=where) from None
    for tensor in open_inputs:
        tensor.ClearField("shape")


def _check_header(model: onnx.ModelProto, where: str) -> dict[str, int]:
    """Version of each domain."""
    import onnx

    if not _OLDEST_IR <= model.ir_version <= onnx.IR_VERSION:
        raise UnsupportedError(
            f"unknown ONNX file version: want {_OLDEST_IR} to {onnx.IR_VERSION}, got {model.ir_version}",
            where=where,
            hint="pip install --upgrade onnx, or export the model again",
        )
    if model.training_info:
        raise UnsupportedError("the model holds training graphs: want inference only", where=where)
    check_text(where, *(entry.domain for entry in model.opset_import))
    newest = {"": onnx.defs.onnx_opset_version(), opset.DOMAIN: opset.VERSION}
    versions: dict[str, int] = {}
    for entry in model.opset_import:
        domain = "" if entry.domain == "ai.onnx" else entry.domain
        if domain in versions:
            raise GraphError(f"operator set {domain!r} is imported twice", where=where)
        versions[domain] = entry.version
        oldest = OLDEST_OPSET if domain == "" else 1
        if domain in newest and not oldest <= entry.version <= newest[domain]:
            raise UnsupportedError(
                f"unknown version of operator set {domain or 'ai.onnx'!r}: want {oldest} to "
                f"{newest[domain]}, got {entry.version}",
                where=where,
                hint="export the model again with opset 20",
            )
        if domain not in newest and not _is_known_domain(domain):
            raise UnsupportedError(
                f"unknown operator domain {domain[:60]!r}", where=where, hint="export with standard operators"
            )
    if not versions:
        raise GraphError("the model imports no operator set", where=where)
    return versions


def _is_known_domain(domain: str) -> bool:
    import onnx

    return domain.startswith("ai.onnx.") and any(s.domain == domain for s in onnx.defs.get_all_schemas())


def mib(size: int) -> str:
    """Bytes as people read them, also absurdly many."""
    if size < 1 << 20:
        return f"{size} bytes"
    return f"{size >> 20} MiB" if size < 1 << 50 else f"2^{size.bit_length() - 1} bytes"


def first_line(error: BaseException) -> str:
    """The first line of an exception's text, at most 200 characters."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:200]


def inner_graphs(attribute: onnx.AttributeProto) -> list[onnx.GraphProto]:
    """The graphs that an attribute holds."""
    return [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]


class _Walk:
    """The checks of one model's graphs."""

    def __init__(self, folder: Path, limits: IntakeLimits, versions: dict[str, int], file: str) -> None:
        self.folder, self.limits, self.versions, self.file = folder, limits, versions, file
        self.nodes = 0
        self.external_bytes = 0
        self._known: dict[tuple[str, str], None] = {}

    def check_graph(self, graph: onnx.GraphProto, outer: frozenset[str], depth: int) -> None:
        if depth > self.limits.nesting:
            raise GraphError(f"graphs are nested deeper than {self.limits.nesting}", where=self.file)
        if graph.sparse_initializer:
            raise UnsupportedError(
                "sparse tensors are not supported: want dense ones",
                where=self._at(graph.sparse_initializer[0].values),
            )
        defined = self._check_interface(graph, outer)
        for node in graph.node:
            self._count(node)
            for name in node.input:
                if name and name not in defined and name not in outer:
                    self._refuse_input(graph, node, name)
            self._check_operator(node)
            self._check_attributes(node, frozenset(defined) | outer if _has_graphs(node) else outer, depth)
            if node.domain == opset.DOMAIN:
                opset.check_node(node, f"{self.file}: {describe(node)}")
            self._define(node, defined, outer)
        for value in graph.output:
            if value.name not in defined and value.name not in outer:
                raise GraphError(f"output {value.name[:80]!r} is never computed", where=self.file)

    def _define(self, node: onnx.NodeProto, defined: set[str], outer: frozenset[str]) -> None:
        for name in filter(None, node.output):
            if name in defined or name in outer:
                where = f"{self.file}: {describe(node)}"
                raise GraphError(f"tensor {name[:80]!r} is defined twice", where=where)
            defined.add(name)

    def _check_interface(self, graph: onnx.GraphProto, outer: frozenset[str]) -> set[str]:
        """Names of inputs and initializers, after checking both and the outputs."""
        check_text(
            self.file, graph.name, *(v.name for v in (*graph.input, *graph.initializer, *graph.output))
        )
        defined: set[str] = set()
        for value in graph.input:
            if not value.name or value.name in defined or value.name in outer:
                raise GraphError(f"input {value.name[:80]!r} has an empty or repeated name", where=self.file)
            defined.add(value.name)
            self._check_value(value, "input")
        inputs = frozenset(defined)
        for tensor in graph.initializer:
            if not tensor.name or (tensor.name in defined and tensor.name not in inputs):
                raise GraphError(f"weights {tensor.name[:80]!r}: empty or repeated name", where=self.file)
            if tensor.name in outer:
                raise GraphError(f"tensor {tensor.name[:80]!r} is defined twice", where=self.file)
            defined.add(tensor.name)
            self.check_tensor(tensor)
        outputs = [value.name for value in graph.output]
        if len(set(outputs)) < len(outputs):
            raise GraphError("two outputs have one name", where=self.file)
        for value in graph.output:
            self._check_value(value, "output")
        return defined

    def _check_value(self, value: onnx.ValueInfoProto, kind: str) -> None:
        where = f"{self.file}: {kind} {value.name[:80]!r}"
        if value.type.HasField("sparse_tensor_type"):
            raise UnsupportedError("sparse tensors are not supported: want dense ones", where=where)
        if not value.type.HasField("tensor_type"):
            return  # Sequences and optionals exist inside graphs; the interface is checked by its caller.
        tensor = value.type.tensor_type
        if tensor.elem_type and tensor.elem_type not in _BITS:
            raise UnsupportedError(
                f"element type {_type_name(tensor.elem_type)} is not supported", where=where
            )
        if len(tensor.shape.dim) > self.limits.rank:
            raise GraphError(
                f"want at most {self.limits.rank} axes, got {len(tensor.shape.dim)}", where=where
            )
        check_text(where, *(d.dim_param for d in tensor.shape.dim))
        lengths = [d.dim_value for d in tensor.shape.dim if d.HasField("dim_value")]
        if any(length < 0 for length in lengths):
            raise GraphError(f"want lengths >= 0, got {min(lengths)}", where=where)
        bits = math.prod(max(n, 1) for n in lengths) * _BITS.get(tensor.elem_type, 8)
        if bits > self.limits.tensor_bytes * 8:
            raise GraphError(
                f"a tensor of {mib(bits // 8)}: want at most {mib(self.limits.tensor_bytes)}", where=where
            )

    def check_tensor(self, tensor: onnx.TensorProto) -> None:
        """Type, shape and amount of data of one tensor with values."""
        where = self._at(tensor)
        if tensor.data_type not in _BITS:
            raise UnsupportedError(
                f"element type {_type_name(tensor.data_type)} is not supported", where=where
            )
        if len(tensor.dims) > self.limits.rank or any(length < 0 for length in tensor.dims):
            raise GraphError(
                f"want at most {self.limits.rank} lengths >= 0, got {list(tensor.dims)[:8]}", where=where
            )
        size = tensor_bytes(tensor)
        if size > self.limits.file_bytes:
            raise GraphError(f"weights of {size >> 20} MiB are more than the file may hold", where=where)
        if tensor.HasField("segment"):
            raise UnsupportedError("weights in segments are not supported", where=where)
        if external.is_external(tensor):
            self.external_bytes += size
            if self.external_bytes > self.limits.file_bytes:
                raise GraphError(
                    f"external data is larger than {self.limits.file_bytes >> 20} MiB", where=where
                )
            external.read(tensor, size, self.folder, where=where, contents=False)
            if len(tensor.raw_data):
                raise GraphError("weights are given both inside and outside of the file", where=where)
        else:
            self._check_amount(tensor, size, where)

    def _check_amount(self, tensor: onnx.TensorProto, size: int, where: str) -> None:
        from onnx import helper

        count = math.prod(tensor.dims)
        field = helper.tensor_dtype_to_field(tensor.data_type)
        if _BITS[tensor.data_type] < 8:
            count = size
        typed = len(getattr(tensor, field))
        got = {name: len(getattr(tensor, name)) for name in _DATA_FIELDS}
        others = sum(got.values()) - typed
        if tensor.HasField("raw_data"):
            good = len(tensor.raw_data) == size and not typed and not others
        else:
            good = typed == count and not others
        if not good:
            raise GraphError(
                f"data and shape do not agree: want {size} bytes for {list(tensor.dims)[:8]}, "
                f"got {len(tensor.raw_data)} bytes and {sum(got.values())} numbers",
                where=where,
            )

    def _count(self, node: onnx.NodeProto) -> None:
        self.nodes += 1
        check_text(self.file, node.op_type, node.domain, node.name, *node.input, *node.output)
        if self.nodes > self.limits.nodes:
            raise GraphError(f"too large a graph: want at most {self.limits.nodes} nodes", where=self.file)
        if not node.op_type:
            raise GraphError(f"node {node.name[:80]!r} has no operator", where=self.file)

    def _check_operator(self, node: onnx.NodeProto) -> None:
        from onnx import defs

        domain = "" if node.domain == "ai.onnx" else node.domain
        key = (domain, node.op_type)
        if key in self._known:
            return
        where = f"{self.file}: {describe(node)}"
        if domain not in self.versions:
            raise UnsupportedError(
                f"operator domain {domain[:60]!r} is not imported by the model", where=where
            )
        version = self.versions[domain]
        try:
            schema = defs.get_schema(node.op_type, version, domain)
        except defs.SchemaError:
            near = did_you_mean(
                node.op_type[:60], {s.name for s in defs.get_all_schemas() if s.domain == domain}
            )
            raise UnsupportedError(
                f"unknown operator {node.op_type[:60]!r} of {domain or 'ai.onnx'!r} version {version}",
                where=where,
                hint=f"did you mean {near!r}?" if near else "export with standard operators",
            ) from None
        if schema.deprecated:
            raise UnsupportedError(
                f"operator {node.op_type!r} does not exist any more in version {version}",
                where=where,
                hint="export the model again with opset 20",
            )
        self._known[key] = None

    def _check_attributes(self, node: onnx.NodeProto, visible: frozenset[str], depth: int) -> None:
        where = f"{self.file}: {describe(node)}"
        names = [attribute.name for attribute in node.attribute]
        check_text(where, *names)
        if len(set(names)) < len(names):
            raise GraphError("an attribute is given twice", where=where)
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                raise GraphError(
                    f"attribute {attribute.name[:40]!r} refers to a function outside of any", where=where
                )
            _check_strings(attribute, where)
            if attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
                raise UnsupportedError("sparse tensors are not supported: want dense ones", where=where)
            for tensor in (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors):
                self.check_tensor(tensor)
            for inner in inner_graphs(attribute):
                self.check_graph(inner, visible, depth + 1)

    def _refuse_input(self, graph: onnx.GraphProto, node: onnx.NodeProto, name: str) -> None:
        where = f"{self.file}: {describe(node)}"
        if not any(name in other.output for other in graph.node):
            raise GraphError(f"input {name[:80]!r} is not defined anywhere", where=where)
        if _has_cycle(graph):
            raise GraphError(f"the graph has a cycle through tensor {name[:80]!r}", where=where)
        raise GraphError(
            f"nodes are not in order: {name[:80]!r} is used before it is computed",
            where=where,
            hint="sort it: onnx_ir.passes.common.TopologicalSortPass",
        )

    def _at(self, tensor: onnx.TensorProto) -> str:
        return f"{self.file}: tensor {tensor.name[:80]!r}"


_DATA_FIELDS = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


def _check_strings(attribute: onnx.AttributeProto, where: str) -> None:
    for value in (*([attribute.s] if attribute.HasField("s") else []), *attribute.strings):
        try:
            value.decode()
        except UnicodeDecodeError:
            raise GraphError(f"attribute {attribute.name[:40]!r} is no UTF-8 text", where=where) from None


def _has_graphs(node: onnx.NodeProto) -> bool:
    return any(inner_graphs(attribute) for attribute in node.attribute)


def _has_cycle(graph: onnx.GraphProto) -> bool:
    """Whether no order of the nodes exists (Kahn's algorithm)."""
    maker = {name: i for i, node in enumerate(graph.node) for name in node.output if name}
    waiting = [len({maker[name] for name in node.input if name in maker}) for node in graph.node]
    readers: list[set[int]] = [set() for _ in graph.node]
    for i, node in enumerate(graph.node):
        for name in node.input:
            if name in maker:
                readers[maker[name]].add(i)
    ready = [i for i, count in enumerate(waiting) if count == 0]
    done = 0
    while ready:
        i = ready.pop()
        done += 1
        for reader in readers[i]:
            waiting[reader] -= 1
            if waiting[reader] == 0:
                ready.append(reader)
    return done < len(graph.node)


def _type_name(elem_type: int) -> str:
    import onnx

    names: dict[int, str] = {value: name for name, value in onnx.TensorProto.DataType.items()}
    return names.get(elem_type, f"number {elem_type}")
