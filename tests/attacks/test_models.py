"""Malformed and hostile model files: each is refused with a clear error, quickly, with no side effect."""

from __future__ import annotations

import json
import os
import pickle
import socket
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.errors import GraphError, ModelError, SpecError, UnsupportedError
from edgekit.graph.load import check_file, load

MEMORY_BYTES = 512 << 20
# The promise is 2 s; a test machine may be busy with other work.
TIME_S = 2.0 * 5

Attack = Callable[[Path], None]


def model(
    nodes: list[onnx.NodeProto],
    *,
    inputs: dict[str, list[int | str]] | None = None,
    outputs: dict[str, list[int | str] | None] | None = None,
    weights: list[onnx.TensorProto] | None = None,
    opset: int = 20,
    domains: dict[str, int] | None = None,
    functions: list[onnx.FunctionProto] | None = None,
    input_type: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, input_type, s) for n, s in (inputs or {"x": [1, 4]}).items()],
        [helper.make_tensor_value_info(n, 1, s) for n, s in (outputs or {"y": None}).items()],
        weights or [],
    )
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(domain, version) for domain, version in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, functions=functions or [])


def save(made: onnx.ModelProto, path: Path) -> None:
    path.write_bytes(made.SerializeToString())


def relu(x: str = "x", y: str = "y", name: str = "") -> onnx.NodeProto:
    return helper.make_node("Relu", [x], [y], name=name)


def int64(name: str, *values: int) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], list(values))


def scalar(name: str, value: int) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [], [value])


def external(name: str, shape: list[int], **entries: str) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def with_external(path: Path, **entries: str) -> None:
    weights = external("w", [4], **entries)
    save(model([helper.make_node("Add", ["x", "w"], ["y"])], weights=[weights]), path)


def branch(nodes: list[onnx.NodeProto], output: str) -> onnx.GraphProto:
    return helper.make_graph(nodes, "b", [], [helper.make_tensor_value_info(output, 1, None)])


def add_of(bomb: list[onnx.NodeProto], weights: list[onnx.TensorProto]) -> onnx.ModelProto:
    """A model whose output needs the tensor ``big``."""
    tail = helper.make_node("ReduceMax", ["big"], ["m"], keepdims=0)
    return model([*bomb, tail, helper.make_node("Add", ["x", "m"], ["y"])], weights=weights)


# --- what is wrong with the file itself


def truncated(path: Path) -> None:
    save(model([relu()]), path)
    path.write_bytes(path.read_bytes()[:-7])


def not_onnx(path: Path) -> None:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def larger_than_protobuf(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 30)


def a_gigabyte_of_nothing(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 30)


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def nested_ten_thousand_times(path: Path) -> None:
    body = b""
    for _ in range(10_000):
        # NodeProto.attribute[].g.node[]
        for field in (6, 5, 1):
            body = bytes([field << 3 | 2]) + varint(len(body)) + body
    save(model([relu()]), path)
    path.write_bytes(path.read_bytes() + b"\x3a" + varint(len(body)) + body)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def nested_twenty_times(path: Path) -> None:
    inner = branch([relu("x", "z")], "z")
    for i in range(20):
        other = branch([relu("x", f"o{i}")], f"o{i}")
        node = helper.make_node("If", ["c"], [f"z{i}"], then_branch=inner, else_branch=other)
        inner = branch([node], f"z{i}")
    other = branch([relu("x", "o")], "o")
    made = model([helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=other)])
    made.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    save(made, path)


def a_million_nodes(path: Path) -> None:
    made = model([])
    node = relu("x", "a").SerializeToString()
    nodes = (b"\x0a" + varint(len(node)) + node) * 1_000_000
    graph = made.graph.SerializeToString() + nodes
    made.ClearField("graph")
    path.write_bytes(made.SerializeToString() + b"\x3a" + varint(len(graph)) + graph)


def a_million_nodes_in_a_branch(path: Path, count: int = 1_000_000) -> None:
    node = relu("x", "").SerializeToString()
    nodes = (b"\x0a" + varint(len(node)) + node) * count
    attribute = b"\x0a\x01t\x32" + varint(len(nodes)) + nodes
    outer = b"\x22\x02If\x2a" + varint(len(attribute)) + attribute
    made = model([])
    graph = made.graph.SerializeToString() + b"\x0a" + varint(len(outer)) + outer
    made.ClearField("graph")
    path.write_bytes(made.SerializeToString() + b"\x3a" + varint(len(graph)) + graph)


def ten_million_nodes_in_a_branch(path: Path) -> None:
    a_million_nodes_in_a_branch(path, 10_000_000)


# --- what is wrong with the graph


def cycle(path: Path) -> None:
    save(model([helper.make_node("Add", ["x", "b"], ["a"]), relu("a", "b"), relu("b", "y")]), path)


def out_of_order(path: Path) -> None:
    save(model([relu("a", "y"), relu("x", "a")]), path)


def name_twice(path: Path) -> None:
    save(model([relu("x", "y", "one"), helper.make_node("Abs", ["x"], ["y"], name="two")]), path)


def weights_twice(path: Path) -> None:
    save(model([relu()], weights=[int64("w", 1), int64("w", 2)]), path)


def undefined(path: Path) -> None:
    save(model([helper.make_node("Add", ["x", "ghost"], ["y"], name="sum")]), path)


def output_never_made(path: Path) -> None:
    save(model([relu("x", "a")]), path)


def unknown_operator(path: Path) -> None:
    save(model([helper.make_node("Reluu", ["x"], ["y"], name="first")]), path)


def unknown_domain(path: Path) -> None:
    save(model([helper.make_node("Gelu", ["x"], ["y"], domain="evil")], domains={"evil": 1}), path)


def domain_not_imported(path: Path) -> None:
    save(model([helper.make_node("Warp", ["x", "x"], ["y"], domain="edgekit")]), path)


def unknown_own_operator(path: Path) -> None:
    save(model([helper.make_node("Wrap", ["x"], ["y"], domain="edgekit")], domains={"edgekit": 1}), path)


def own_domain_version_2(path: Path) -> None:
    save(model([helper.make_node("Warp", ["x", "x"], ["y"], domain="edgekit")], domains={"edgekit": 2}), path)


def opset_0(path: Path) -> None:
    save(model([relu()], opset=0), path)


def opset_999(path: Path) -> None:
    save(model([relu()], opset=999), path)


def removed_operator(path: Path) -> None:
    save(model([helper.make_node("Upsample", ["x", "x"], ["y"])], opset=20), path)


def ir_version_999(path: Path) -> None:
    made = model([relu()])
    made.ir_version = 999
    save(made, path)


def wrong_number_of_inputs(path: Path) -> None:
    save(model([helper.make_node("Conv", ["x"], ["y"])]), path)


def unknown_attribute(path: Path) -> None:
    save(model([helper.make_node("Relu", ["x"], ["y"], slope=0.1)]), path)


def shapes_that_do_not_fit(path: Path) -> None:
    save(model([helper.make_node("MatMul", ["x", "x"], ["y"], name="mm")]), path)


def negative_length(path: Path) -> None:
    save(model([relu()], inputs={"x": [1, -4]}), path)


def zero_length(path: Path) -> None:
    save(model([relu()], inputs={"x": [1, 0]}), path)


def huge_length(path: Path) -> None:
    save(model([relu()], inputs={"x": [1, 1 << 62]}), path)


def product_overflows(path: Path) -> None:
    save(model([relu()], inputs={"x": [1 << 32, 1 << 32]}), path)


def many_axes(path: Path) -> None:
    save(model([relu()], inputs={"x": [1] * 1000}), path)


def weights_of_negative_shape(path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[-1])
    save(model([helper.make_node("Add", ["x", "w"], ["y"])], weights=[tensor]), path)


def weights_shape_overflows(path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1 << 33, 1 << 31])
    save(model([helper.make_node("Add", ["x", "w"], ["y"])], weights=[tensor]), path)


def weights_too_short(path: Path) -> None:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=bytes(12))
    save(model([helper.make_node("Add", ["x", "w"], ["y"])], weights=[tensor]), path)


def weights_of_unknown_type(path: Path) -> None:
    tensor = TensorProto(name="w", data_type=99, dims=[1], raw_data=bytes(4))
    save(model([relu()], weights=[tensor]), path)


def string_weights(path: Path) -> None:
    save(model([relu()], weights=[helper.make_tensor("s", TensorProto.STRING, [1], [b"text"])]), path)


def string_input(path: Path) -> None:
    save(model([helper.make_node("Identity", ["x"], ["y"])], input_type=TensorProto.STRING), path)


def sparse_weights(path: Path) -> None:
    made = model([relu()])
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, int64("i", 1 << 40), [4]))
    save(made, path)


def sparse_constant(path: Path) -> None:
    values = helper.make_tensor("s", TensorProto.FLOAT, [1], [1.0])
    sparse = helper.make_sparse_tensor(values, int64("i", 1 << 40), [4])
    save(model([helper.make_node("Constant", [], ["w"], sparse_value=sparse), relu()]), path)


def function_calls_itself(path: Path) -> None:
    imports = [helper.make_opsetid("f", 1), helper.make_opsetid("", 20)]
    f = helper.make_function(
        "f", "F", ["a"], ["b"], [helper.make_node("F", ["a"], ["b"], domain="f")], imports
    )
    made = model([helper.make_node("F", ["x"], ["y"], domain="f")], domains={"f": 1}, functions=[f])
    save(made, path)


def functions_that_multiply(path: Path) -> None:
    imports = [helper.make_opsetid("f", 1), helper.make_opsetid("", 20)]
    functions = [helper.make_function("f", "F0", ["a"], ["b"], [relu("a", "b")], imports)]
    for i in range(1, 30):
        nodes = [
            helper.make_node(f"F{i - 1}", ["a"], ["c"], domain="f"),
            helper.make_node(f"F{i - 1}", ["c"], ["b"], domain="f"),
        ]
        functions.append(helper.make_function("f", f"F{i}", ["a"], ["b"], nodes, imports))
    made = model([helper.make_node("F29", ["x"], ["y"], domain="f")], domains={"f": 1}, functions=functions)
    save(made, path)


def attribute_reference(path: Path) -> None:
    node = helper.make_node("LeakyRelu", ["x"], ["y"])
    node.attribute.add(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    save(model([node]), path)


# --- bombs: small files, large tensors


def constant_of_shape(path: Path) -> None:
    save(add_of([helper.make_node("ConstantOfShape", ["s"], ["big"])], [int64("s", 250_000_000)]), path)


def constant_of_shape_astronomic(path: Path) -> None:
    save(add_of([helper.make_node("ConstantOfShape", ["s"], ["big"])], [int64("s", 1 << 40, 1 << 22)]), path)


def constant_of_computed_shape(path: Path) -> None:
    nodes = [
        helper.make_node("Mul", ["s", "s"], ["s2"]),
        helper.make_node("Concat", ["s2", "s"], ["t"], axis=0),
        helper.make_node("ConstantOfShape", ["t"], ["big"], name="bomb"),
    ]
    save(add_of(nodes, [int64("s", 1000)]), path)


def expand(path: Path) -> None:
    save(model([helper.make_node("Expand", ["x", "s"], ["y"])], weights=[int64("s", 1 << 34, 4)]), path)


def tile_of_weights(path: Path) -> None:
    ones = helper.make_tensor("o", TensorProto.FLOAT, [2000], np.ones(2000, np.float32))
    save(add_of([helper.make_node("Tile", ["o", "s"], ["big"])], [ones, int64("s", 1_000_000)]), path)


def range_bomb(path: Path) -> None:
    nodes = [
        helper.make_node("Range", ["a", "b", "c"], ["r"]),
        helper.make_node("Cast", ["r"], ["big"], to=TensorProto.FLOAT),
    ]
    save(add_of(nodes, [scalar("a", 0), scalar("b", 1 << 33), scalar("c", 1)]), path)


def resize(path: Path) -> None:
    node = helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode="nearest")
    save(model([node], inputs={"x": [1, 1, 8, 8]}, weights=[int64("s", 1, 1, 1 << 20, 1 << 20)]), path)


def pad(path: Path) -> None:
    save(model([helper.make_node("Pad", ["x", "p"], ["y"])], weights=[int64("p", 0, 1 << 40, 0, 0)]), path)


def many_constants_together(path: Path) -> None:
    nodes = [helper.make_node("ConstantOfShape", ["s"], [f"c{i}"]) for i in range(40)]
    total = "x"
    for i in range(40):
        nodes.append(helper.make_node("ReduceMax", [f"c{i}"], [f"m{i}"], keepdims=0))
        nodes.append(helper.make_node("Add", [total, f"m{i}"], [f"t{i}" if i < 39 else "y"]))
        total = f"t{i}"
    save(model(nodes, weights=[int64("s", 50_000_000)]), path)


def bomb_in_a_branch(path: Path) -> None:
    bomb = branch([helper.make_node("ConstantOfShape", ["s"], ["a"])], "a")
    made = model(
        [helper.make_node("If", ["c"], ["z"], then_branch=bomb, else_branch=bomb), relu()],
        weights=[int64("s", 1 << 30)],
    )
    made.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    save(made, path)


def loop_body() -> onnx.GraphProto:
    return helper.make_graph(
        [helper.make_node("Identity", ["c"], ["d"]), relu("v", "w")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("v", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("d", TensorProto.BOOL, []),
            helper.make_tensor_value_info("w", 1, None),
        ],
    )


def loop_without_end(path: Path) -> None:
    node = helper.make_node("Loop", ["n", "", "x"], ["y"], body=loop_body(), name="forever")
    save(model([node], weights=[scalar("n", (1 << 63) - 1)]), path)


def loop_without_count(path: Path) -> None:
    save(model([helper.make_node("Loop", ["", "", "x"], ["y"], body=loop_body())]), path)


# --- external data


def outside_by_dots(path: Path) -> None:
    (path.parent.parent / "canary.bin").write_bytes(bytes(16))
    with_external(path, location="../canary.bin")


def outside_by_detour(path: Path) -> None:
    (path.parent / "sub").mkdir()
    (path.parent.parent / "canary.bin").write_bytes(bytes(16))
    with_external(path, location="sub/../../canary.bin")


def outside_absolute(path: Path) -> None:
    with_external(path, location="/etc/hostname")


def outside_by_backslash(path: Path) -> None:
    with_external(path, location="..\\canary.bin")


def by_symbolic_link(path: Path) -> None:
    (path.parent.parent / "canary.bin").write_bytes(bytes(16))
    (path.parent / "w.bin").symlink_to(path.parent.parent / "canary.bin")
    with_external(path, location="w.bin")


def by_linked_folder(path: Path) -> None:
    (path.parent.parent / "canary.bin").write_bytes(bytes(16))
    (path.parent / "sub").symlink_to(path.parent.parent)
    with_external(path, location="sub/canary.bin")


def by_hard_link(path: Path) -> None:
    (path.parent.parent / "canary.bin").write_bytes(bytes(16))
    os.link(path.parent.parent / "canary.bin", path.parent / "w.bin")
    with_external(path, location="w.bin")


def external_pipe(path: Path) -> None:
    os.mkfifo(path.parent / "w.bin")
    with_external(path, location="w.bin")


def external_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is limited to about 100 characters
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("w.bin")
    finally:
        os.chdir(here)
    with_external(path, location="w.bin")


def external_folder(path: Path) -> None:
    (path.parent / "w.bin").mkdir()
    with_external(path, location="w.bin")


def external_missing(path: Path) -> None:
    with_external(path, location="w.bin")


def external_without_location(path: Path) -> None:
    with_external(path, offset="0")


def external_offset_past_end(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(bytes(16))
    with_external(path, location="w.bin", offset="8")


def external_negative_offset(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(bytes(64))
    with_external(path, location="w.bin", offset="-1")


def external_huge_offset(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(bytes(64))
    with_external(path, location="w.bin", offset=str((1 << 63) - 1))


def external_wrong_length(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(bytes(64))
    with_external(path, location="w.bin", length="-1")


def external_other_length(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(bytes(64))
    with_external(path, location="w.bin", length="8")


def external_text_length(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(bytes(64))
    with_external(path, location="w.bin", length="16x")


def external_unknown_key(path: Path) -> None:
    (path.parent / "w.bin").write_bytes(bytes(16))
    with_external(path, location="w.bin", __class__="x")


def external_memory_marker(path: Path) -> None:
    with_external(path, location="*/_ORT_MEM_ADDR_/*", offset="94000000000000", length="16")


def external_in_a_constant(path: Path) -> None:
    (path.parent.parent / "canary.bin").write_bytes(bytes(16))
    node = helper.make_node("Constant", [], ["w"], value=external("w", [4], location="../canary.bin"))
    save(model([node, helper.make_node("Add", ["x", "w"], ["y"])]), path)


ATTACKS: dict[Attack, tuple[type[ModelError] | type[SpecError], str]] = {
    truncated: (GraphError, "damaged.* are left"),
    not_onnx: (GraphError, "not an ONNX model"),
    empty: (GraphError, "not an ONNX model"),
    larger_than_protobuf: (GraphError, "too large a file"),
    a_gigabyte_of_nothing: (GraphError, "not an ONNX model"),
    a_pipe: (GraphError, "no regular file"),
    nested_ten_thousand_times: (GraphError, "nested"),
    nested_twenty_times: (GraphError, "nested deeper"),
    a_million_nodes: (GraphError, "nodes"),
    a_million_nodes_in_a_branch: (GraphError, "nodes|takes too much"),
    ten_million_nodes_in_a_branch: (GraphError, "too much beside the weights"),
    cycle: (GraphError, "cycle"),
    out_of_order: (GraphError, "not in order"),
    name_twice: (GraphError, "defined twice"),
    weights_twice: (GraphError, "repeated"),
    undefined: (GraphError, "'ghost' is not defined"),
    output_never_made: (GraphError, "'y' is never computed"),
    unknown_operator: (UnsupportedError, "unknown operator 'Reluu'"),
    unknown_domain: (UnsupportedError, "unknown operator domain 'evil'"),
    domain_not_imported: (UnsupportedError, "import"),
    unknown_own_operator: (UnsupportedError, "unknown operator 'Wrap'"),
    own_domain_version_2: (UnsupportedError, "version"),
    opset_0: (UnsupportedError, "got 0"),
    opset_999: (UnsupportedError, "got 999"),
    removed_operator: (UnsupportedError, "does not exist any more"),
    ir_version_999: (UnsupportedError, "got 999"),
    wrong_number_of_inputs: (GraphError, "not a valid ONNX model"),
    unknown_attribute: (GraphError, "not a valid ONNX model"),
    shapes_that_do_not_fit: (GraphError, "does not fit its inputs"),
    negative_length: (GraphError, "-4"),
    zero_length: (GraphError, ">= 1"),
    huge_length: (GraphError, "want at most"),
    product_overflows: (GraphError, "want at most"),
    many_axes: (GraphError, "axes"),
    weights_of_negative_shape: (GraphError, ">= 0"),
    weights_shape_overflows: (GraphError, "more than the file"),
    weights_too_short: (GraphError, "do not agree"),
    weights_of_unknown_type: (UnsupportedError, "number 99"),
    string_weights: (UnsupportedError, "STRING"),
    string_input: (UnsupportedError, "STRING"),
    sparse_weights: (UnsupportedError, "sparse"),
    sparse_constant: (UnsupportedError, "sparse"),
    function_calls_itself: (GraphError, "calls itself"),
    functions_that_multiply: (GraphError, "after inlining"),
    attribute_reference: (GraphError, "refers to a function"),
    constant_of_shape: (GraphError, "constant computed at load time would take 953 MiB"),
    constant_of_shape_astronomic: (GraphError, "would take 2\\^"),
    constant_of_computed_shape: (GraphError, "would take"),
    expand: (GraphError, "would take"),
    tile_of_weights: (GraphError, "would take"),
    range_bomb: (GraphError, "would take"),
    resize: (GraphError, "would take"),
    pad: (GraphError, "would take"),
    many_constants_together: (GraphError, "together"),
    bomb_in_a_branch: (GraphError, "would take"),
    loop_without_end: (GraphError, "runs"),
    loop_without_count: (UnsupportedError, "number of runs"),
    outside_by_dots: (GraphError, "inside the model's folder"),
    outside_by_detour: (GraphError, "inside the model's folder"),
    outside_absolute: (GraphError, "inside the model's folder"),
    outside_by_backslash: (GraphError, "inside the model's folder"),
    by_symbolic_link: (GraphError, "without following links"),
    by_linked_folder: (GraphError, "without following links"),
    by_hard_link: (GraphError, "hard link"),
    external_pipe: (GraphError, "no regular file"),
    external_socket: (GraphError, "cannot open"),
    external_folder: (GraphError, "no regular file"),
    external_missing: (GraphError, "No such file"),
    external_without_location: (GraphError, "no location"),
    external_offset_past_end: (GraphError, "too short"),
    external_negative_offset: (GraphError, "whole offset"),
    external_huge_offset: (GraphError, "too short"),
    external_wrong_length: (GraphError, "whole length"),
    external_other_length: (GraphError, "want 16 bytes, got 8"),
    external_text_length: (GraphError, "whole length"),
    external_unknown_key: (GraphError, "unknown or repeated key"),
    external_memory_marker: (GraphError, "inside the model's folder"),
    external_in_a_constant: (GraphError, "inside the model's folder"),
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_is_refused(attack: Attack, tmp_path: Path) -> None:
    wanted, text = ATTACKS[attack]
    path = tmp_path / "models" / "m.onnx"
    path.parent.mkdir()
    attack(path)
    with pytest.raises(wanted, match=text) as caught:
        check_file(path)
    assert type(caught.value) is wanted
    assert "m.onnx" in (caught.value.where or "")


IN_A_FRESH_PROCESS = """
import json, resource, sys
from edgekit.errors import EdgekitError
from edgekit.graph.load import check_file, load
try:
    load(sys.argv[1], weights=sys.argv[2] if len(sys.argv) > 2 else None, shapes={"": "1x4"})
    print(json.dumps({"class": None}))
except EdgekitError as error:
    # Not ru_maxrss, which a process inherits from the one that started it.
    own = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
    peak = (own + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) * 1024
    print(json.dumps({**error.as_dict(), "peak": peak, "torch": "torch" in sys.modules}))
"""


def refuse_in_a_fresh_process(*arguments: str) -> dict[str, object]:
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, *arguments],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return {**json.loads(done.stdout), "elapsed_s": time.perf_counter() - started}


@pytest.mark.parametrize(
    "attack",
    [
        truncated, larger_than_protobuf, a_gigabyte_of_nothing, nested_ten_thousand_times, a_million_nodes,
        a_million_nodes_in_a_branch, ten_million_nodes_in_a_branch, functions_that_multiply,
        constant_of_shape, tile_of_weights,
        many_constants_together, loop_without_end, external_huge_offset,
    ],
    ids=lambda attack: attack.__name__,
)  # fmt: skip
def test_is_refused_quickly_in_little_memory(attack: Attack, tmp_path: Path) -> None:
    path = tmp_path / "models" / "m.onnx"
    path.parent.mkdir()
    attack(path)
    answer = refuse_in_a_fresh_process(str(path))
    assert answer["class"] == ATTACKS[attack][0].__name__
    assert answer["peak"] < MEMORY_BYTES
    assert answer["elapsed_s"] < TIME_S


# --- weights of PyTorch models


class Call:
    """Pickles to a call of ``os.system`` that makes a file."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.system, (f"touch {self.canary}",)


def zip_with(path: Path, content: bytes, name: str = "m/data.pkl") -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
        archive.writestr("m/version", "3")


def malicious_pickle(path: Path, canary: Path) -> None:
    path.write_bytes(pickle.dumps({"w": Call(canary)}))


def malicious_pickle_in_zip(path: Path, canary: Path) -> None:
    zip_with(path, pickle.dumps({"w": Call(canary)}, protocol=2))


def malicious_old_protocol_in_zip(path: Path, canary: Path) -> None:
    zip_with(path, pickle.dumps({"w": Call(canary)}, protocol=0))


def name_put_together_from_memo(path: Path, canary: Path) -> None:
    command = f"touch {canary}".encode()
    # memoize 'posix' and 'system' early, push harmless strings, then fetch the two for STACK_GLOBAL
    content = (
        b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x940\x30\x8c\x05torch\x8c\x06Tensor00h\x00h\x01\x93\x8c"
        + bytes([len(command)]) + command + b"\x85R."
    )  # fmt: skip
    zip_with(path, content)


def nested_pickle(path: Path, canary: Path) -> None:
    class Inner:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[bytes]]:
            return pickle.loads, (pickle.dumps(Call(canary)),)

    zip_with(path, pickle.dumps({"w": Inner()}, protocol=2))


def legacy_tar(path: Path, canary: Path) -> None:
    inner = path.with_suffix(".pkl")
    inner.write_bytes(pickle.dumps(Call(canary)))
    with tarfile.open(path, "w") as archive:
        archive.add(inner, "pickle")


def zip_behind_another_file(path: Path, canary: Path) -> None:
    zip_with(path, pickle.dumps({"w": Call(canary)}))
    path.write_bytes(b"7z\xbc\xaf\x27\x1c" + bytes(32) + path.read_bytes())


def two_pickles(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}))
        archive.writestr("n/data.pkl", pickle.dumps({"w": Call(canary)}))


def torchscript(path: Path, canary: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", pickle.dumps({}))
        archive.writestr("m/constants.pkl", pickle.dumps(()))
        archive.writestr("m/code/__torch__.py", f"def forward(self): open({str(canary)!r}, 'w')")


def no_state(path: Path, canary: Path) -> None:
    zip_with(path, b"\x80\x02]q\x00.")


WEIGHTS: dict[Callable[[Path, Path], None], str] = {
    malicious_pickle: "not in torch's zip format",
    malicious_pickle_in_zip: "wants to call posix.system",
    malicious_old_protocol_in_zip: "wants to call posix.system",
    name_put_together_from_memo: "STACK_GLOBAL",
    nested_pickle: "wants to call _?pickle.loads",
    legacy_tar: "not in torch's zip format",
    zip_behind_another_file: "not in torch's zip format",
    two_pickles: "2 pickles",
    torchscript: "TorchScript",
}


@pytest.mark.parametrize("attack", WEIGHTS, ids=lambda attack: attack.__name__)
def test_weights_that_run_code_are_refused(attack: Callable[[Path, Path], None], tmp_path: Path) -> None:
    path, canary = tmp_path / "m.pt", tmp_path / "canary"
    attack(path, canary)
    with pytest.raises(ModelError, match=WEIGHTS[attack]) as caught:
        load("nowhere:build", weights=path)
    assert "m.pt" in (caught.value.where or "")
    assert not canary.exists()


def test_torch_itself_would_not_run_them_either(tmp_path: Path) -> None:
    """What keeps pickles from running is torch's weights_only; the look before is only faster."""
    import torch

    from edgekit.torch.source import load_weights

    for number, attack in enumerate(WEIGHTS):
        path, canary = tmp_path / f"{number}.pt", tmp_path / "canary"
        attack(path, canary)
        with pytest.raises(ModelError):
            load_weights(torch.nn.Linear(1, 1), path)
        assert not canary.exists()


def test_weights_are_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    path, canary = tmp_path / "m.pt", tmp_path / "canary"
    malicious_pickle_in_zip(path, canary)
    answer = refuse_in_a_fresh_process("nowhere:build", str(path))
    assert answer["class"] == "ModelError"
    assert answer["torch"] is False
    assert answer["peak"] < MEMORY_BYTES
    assert answer["elapsed_s"] < TIME_S
    assert not canary.exists()


def test_pt2_wants_trust(tmp_path: Path) -> None:
    path, canary = tmp_path / "m.pt2", tmp_path / "canary"
    malicious_pickle_in_zip(path, canary)
    with pytest.raises(ModelError, match="can run code") as caught:
        load(path)
    assert "--trust" in (caught.value.hint or "")
    assert not canary.exists()


@pytest.mark.parametrize(
    "header",
    [
        b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,8]}}',
        b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"v":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}',
        b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}',
        b"not json",
    ],
    ids=["shape", "overlap", "hole", "text"],
)
def test_damaged_safetensors_are_refused(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(ModelError, match="safetensors"):
        load("nowhere:build", weights=path)


def test_safetensors_with_a_huge_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(struct.pack("<Q", 1 << 60) + bytes(8))
    with pytest.raises(ModelError, match="safetensors"):
        load("nowhere:build", weights=path)


def test_mutants_are_refused_or_load_but_never_crash(tmp_path: Path) -> None:
    """Single flipped bits: whatever comes of them is an error of ours or a graph."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [2, 4], np.arange(8, dtype=np.float32))
    nodes = [helper.make_node("MatMul", ["x", "wt"], ["a"]), relu("a", "y")]
    nodes.insert(0, helper.make_node("Transpose", ["w"], ["wt"], perm=[1, 0]))
    data = model(nodes, weights=[weights]).SerializeToString()
    rng = np.random.default_rng(0)
    path = tmp_path / "m.onnx"
    outcomes = set()
    for _ in range(400):
        mutant = bytearray(data)
        mutant[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(mutant)
        try:
            check_file(path)
            outcomes.add("loaded")
        except (ModelError, SpecError):
            outcomes.add("refused")
    assert outcomes == {"loaded", "refused"}
