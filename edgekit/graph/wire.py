"""A look at a model file's outer structure that reads a few bytes for each part and allocates nothing.

Parsing multiplies a file's size in memory, and a damaged or hostile one is refused here before that: the
file must be one ONNX ``ModelProto`` (protobuf wire format, fields as in ``onnx.proto``) that ends where its
length fields say, with a bounded number of nodes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from edgekit.errors import GraphError

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
# Field number -> wire type, of ModelProto.
_MODEL_FIELDS = {
    1: _VARINT,
    2: _LENGTH,
    3: _LENGTH,
    4: _LENGTH,
    5: _VARINT,
    6: _LENGTH,
    7: _LENGTH,
    8: _LENGTH,
    14: _LENGTH,
    20: _LENGTH,
    25: _LENGTH,
    26: _LENGTH,
}
_GRAPH, _OPSET = 7, 8
# Fields of GraphProto, NodeProto, AttributeProto and TensorProto that lead to numbers.
_NODE, _INITIALIZER, _ATTRIBUTE, _TENSOR = 1, 5, 5, 5
_NUMBERS = {4, 9, 10}  # float_data, raw_data, double_data: they take as much memory as file
_WORTH_A_LOOK = 1024
_LARGEST_VARINT = 10


class _Damaged(Exception):
    pass


def check_outline(descriptor: int, size: int, *, nodes: int, structure_bytes: int, where: str) -> int:
    """Refuse a file that cannot be an ONNX model.

    Args:
        descriptor: Of the open file.
        size: Its bytes.
        nodes: Most nodes (and, each for itself, other entries) that a graph may have.
        structure_bytes: Most bytes of everything that is no number of a tensor. Parsing multiplies these.
        where: Name of the file, for messages.

    Returns:
        Bytes of tensors' numbers.

    Raises:
        GraphError: Not ONNX, truncated, or with too many nodes or too much structure.
    """
    seen: set[int] = set()
    payload = 0
    try:
        for number, kind, start, end in _fields(descriptor, 0, size):
            if _MODEL_FIELDS.get(number) != kind:
                raise _Damaged(f"byte {start}: field {number} is none of an ONNX model")
            seen.add(number)
            if number == _GRAPH:
                payload += _check_graph(descriptor, start, end, nodes, where)
    except _Damaged as damage:
        raise GraphError(
            f"not an ONNX model, or a damaged one: {damage}",
            where=where,
            hint="compare the file's size with the original and copy it again",
        ) from None
    missing = [name for number, name in ((_GRAPH, "graph"), (_OPSET, "opset_import")) if number not in seen]
    if missing:
        raise GraphError(f"not an ONNX model, or a damaged one: no {' and no '.join(missing)}", where=where)
    if size - payload > structure_bytes:
        raise GraphError(
            f"too much beside the weights: want at most {structure_bytes} bytes, got {size - payload}",
            where=where,
        )
    return payload


def check_text(where: str, *texts: object) -> None:
    """Refuse text that is not UTF-8; protobuf hands such text out as bytes.

    Raises:
        GraphError: One of them is not.
    """
    for text in texts:
        if not isinstance(text, str):
            raise GraphError(f"a name is no UTF-8 text: {text!r:.60}", where=where)


def _check_graph(descriptor: int, start: int, end: int, nodes: int, where: str) -> int:
    """Count the graph's entries; returns the bytes of its tensors' numbers."""
    counts: dict[int, int] = {}
    payload = 0
    for number, _, begin, stop in _fields(descriptor, start, end):
        counts[number] = counts.get(number, 0) + 1
        if counts[number] > nodes:
            what = "nodes" if number == _NODE else f"entries of field {number}"
            raise GraphError(f"too large a graph: want at most {nodes} {what}", where=where)
        if number == _INITIALIZER:
            payload += _numbers(descriptor, begin, stop, ())
        elif number == _NODE:
            payload += _numbers(descriptor, begin, stop, (_ATTRIBUTE, _TENSOR))
    return payload


def _numbers(descriptor: int, start: int, end: int, path: tuple[int, ...]) -> int:
    """Bytes of numbers in the tensors that ``path`` leads to from a message; small ones count as nothing."""
    if end - start < _WORTH_A_LOOK:
        return 0
    total = 0
    for number, kind, begin, stop in _fields(descriptor, start, end):
        if kind != _LENGTH:
            continue
        if path and number == path[0]:
            total += _numbers(descriptor, begin, stop, path[1:])
        elif not path and number in _NUMBERS:
            total += stop - begin
    return total


def _fields(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, wire type, first byte, end) of each field of the message in ``start … end``."""
    position = start
    while position < end:
        head = os.pread(descriptor, min(2 * _LARGEST_VARINT, end - position), position)
        tag, used = _varint(head, 0, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            _, body_end = _varint(head, used, position)
            begin, stop = position + used, position + body_end
        elif kind == _LENGTH:
            length, used = _varint(head, used, position)
            begin = position + used
            stop = begin + length
        elif kind in (_FIXED32, _FIXED64):
            begin = position + used
            stop = begin + (4 if kind == _FIXED32 else 8)
        else:
            raise _Damaged(f"byte {position}: no protobuf field")
        if stop > end:
            raise _Damaged(f"a field at byte {position} wants {stop - begin} bytes, {end - begin} are left")
        yield number, kind, begin, stop
        position = stop


def _varint(head: bytes, at: int, position: int) -> tuple[int, int]:
    """(value, offset after it)."""
    value = 0
    for index in range(at, min(len(head), at + _LARGEST_VARINT)):
        value |= (head[index] & 0x7F) << (7 * (index - at))
        if head[index] < 0x80:
            return value, index + 1
    raise _Damaged(f"byte {position}: no protobuf field")
