"""What has to be tried with a Core of its own: how OpenVINO is without us, with the library alone, in Python.

A process has one Core (see the backend), and what is registered there stays. So each part is a process:
``python openvino_child.py PART FOLDER``; a part that fails ends with a traceback.
"""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from onnx import TensorProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from hosts.cases import TOLERANCE, HostCase, cases
from hosts.probes import last_call

from edgekit.backends import openvino_operators
from edgekit.graph import opset
from edgekit.hosts import build
from edgekit.hosts import openvino as host

CONFIG = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 2}
PADDINGS = ("zeros", "border", "reflection")
# Of the operator sets 16 and 20.
MODES = ((16, ("bilinear", "nearest", "bicubic")), (20, ("linear", "nearest", "cubic")))


def grid_sample(
    image: tuple[int, ...],
    grid: tuple[int, ...],
    version: int,
    *,
    kinds: tuple[int, int] = (TensorProto.FLOAT, TensorProto.FLOAT),
    known: bool = True,
    **attributes: Any,
) -> bytes:
    """A model of the standard GridSample alone, which may leave even the number of axes open."""
    node = helper.make_node("GridSample", ["image", "grid"], ["out"], **attributes)
    inputs = [
        helper.make_tensor_value_info(name, kind, shape if known else None)
        for name, shape, kind in zip(("image", "grid"), (image, grid), kinds, strict=True)
    ]
    out = helper.make_tensor_value_info("out", kinds[0], None)
    graph = helper.make_graph([node], "standard", inputs, [out])
    imports = [helper.make_opsetid("", version)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10).SerializeToString()


def images() -> dict[str, tuple[bytes, list[np.ndarray]]]:
    """Every way to sample an image: the model and its feeds, by name."""
    rng = np.random.default_rng(7)
    image = rng.standard_normal((2, 3, 9, 14), np.float32)
    grid = rng.uniform(-1.6, 1.6, (2, 5, 17, 2)).astype(np.float32)
    found = {}
    for (version, modes), padding, corners in itertools.product(MODES, PADDINGS, (0, 1)):
        for mode, known in itertools.product(modes, (True, False)):
            options = {"mode": mode, "padding_mode": padding, "align_corners": corners}
            model = grid_sample(image.shape, grid.shape, version, known=known, **options)
            found[f"{version} {mode} {padding} {corners} {known}"] = (model, [image, grid])
    found["defaults"] = (grid_sample(image.shape, grid.shape, 16), [image, grid])
    return found


def run(core: openvino.Core, model: bytes, feeds: list[np.ndarray]) -> np.ndarray:
    network = core.read_model(model)
    # The CPU takes no input whose number of axes is open.
    network.reshape({index: list(array.shape) for index, array in enumerate(feeds)})
    result: np.ndarray = core.compile_model(network, "CPU", CONFIG).create_infer_request().infer(feeds)[0]
    return result


def stock(core: openvino.Core, folder: Path) -> None:
    """OpenVINO alone samples images, and refuses volumes."""
    np.savez(folder / "stock.npz", **{name: run(core, *job) for name, job in images().items()})
    try:
        core.read_model(grid_sample((1, 1, 4, 4, 4), (1, 4, 4, 4, 3), 20))
    except RuntimeError as error:
        assert "only supported for 4D" in str(error)
    else:
        raise AssertionError("OpenVINO samples volumes itself now: registering GridSample is needless")


def library(core: openvino.Core, folder: Path) -> None:
    """The library alone, as anybody registers it: networks name the operators by the opset 'edgekit'."""
    core.add_extension(str(build.library(host.adapter())))
    for case in representatives():
        read_back_and_run(core, case, folder)
    image, grid = (1, 2, 4, 5, 6), (1, 3, 4, 7, 3)
    sample_volumes(core)
    ours = core.read_model(grid_sample(image, grid, 20)).get_ops()
    assert any(op.get_type_info().version_id == opset.DOMAIN for op in ours)


def in_python(core: openvino.Core, folder: Path) -> None:
    """The operators in Python."""
    for extension in openvino_operators.extensions():
        core.add_extension(extension)
    pointers = []
    compute = openvino_operators.compute

    def watched(operator: Any, inputs: Any, out: Any, *others: Any) -> None:
        pointers.append([array.ctypes.data for array in (*inputs, out)])
        compute(operator, inputs, out, *others)

    openvino_operators.compute = watched
    for case in (*itertools.islice(cases(), 0, None, 5), *representatives()):
        with openvino_operators.running_on(2):
            model = core.read_model(case.model())
        request = core.compile_model(model, "CPU", CONFIG).create_infer_request()
        for feed, expected in zip(case.feeds, case.expected(), strict=True):
            case.check(request.infer(list(feed))[0], expected)
    for case in representatives():
        read_back_and_run(core, case, folder)
    assert pointers
    sample_volumes(core)
    for name, (model, feeds) in images().items():
        np.testing.assert_array_equal(run(core, model, feeds), np.load(folder / "stock.npz")[name])
    pointers.clear()
    case = next(c for c in cases() if c.label == "Warp with the defaults")
    out = np.empty_like(case.expected()[0])
    request = core.compile_model(core.read_model(case.model()), "CPU", CONFIG).create_infer_request()
    for index, array in enumerate(case.feeds[0]):
        request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
    request.set_output_tensor(openvino.Tensor(out, shared_memory=True))
    request.infer()
    assert pointers == [[array.ctypes.data for array in (*case.feeds[0], out)]]
    case.check(out, case.expected()[0])
    half = next(c for c in cases() if c.operator == "GridSample3d" and c.dtype == "float16")
    evaluate(core.read_model(half.model()), half)
    # Of operators that have one name OpenVINO makes the first from its own form, and from ONNX the last.
    core.add_extension(str(build.library(host.adapter())))
    pointers.clear()
    run(core, case.model(), list(case.feeds[0]))
    assert not pointers
    openvino.save_model(core.read_model(case.model()), folder / "first.xml")
    core.compile_model(core.read_model(folder / "first.xml"), "CPU", CONFIG)(list(case.feeds[0]))
    assert pointers


def pointers(core: openvino.Core, folder: Path) -> None:
    """The library reads the caller's memory, and writes the caller's or what the caller gets to see."""
    path = build.library(host.adapter())
    core.add_extension(str(path))
    # Of x86 the CPU widens float16 before it calls an operator.
    for case in (case for case in cases() if case.dtype == "float32"):
        model = core.compile_model(core.read_model(case.model()), "CPU", CONFIG)
        for feed, expected in zip(case.feeds, case.expected(), strict=True):
            request = model.create_infer_request()
            for index, array in enumerate(feed):
                request.set_input_tensor(index, openvino.Tensor(array, shared_memory=True))
            out = np.empty_like(expected)
            if not case.dynamic:  # else OpenVINO has the result written to its own memory, whoever asks
                request.set_output_tensor(openvino.Tensor(out, shared_memory=True))
            request.infer()
            got = request.get_output_tensor().data
            case.check(got, expected)
            assert case.dynamic or got.ctypes.data == out.ctypes.data
            given = [array.ctypes.data for array in (*feed, got)]
            assert last_call(path, len(feed)) == given, case.label


def representatives() -> list[HostCase]:
    """The case of each operator with the fewest attributes that are the defaults, in float32."""
    chosen: dict[str, tuple[int, HostCase]] = {}
    for case in cases():
        defaults = opset.OPERATORS[case.operator].attributes
        others = sum(case.attributes.get(name, value) != value for name, value in defaults.items())
        if case.dtype == "float32" and others >= chosen.get(case.operator, (0, case))[0]:
            chosen[case.operator] = (others, case)
    assert chosen.keys() == opset.OPERATORS.keys()
    # Numbers that float32 has not exactly have to come through text as well.
    return [
        replace(case, attributes={k: v + 0.1 if type(v) is float else v for k, v in case.attributes.items()})
        for _, case in chosen.values()
    ]


def read_back_and_run(core: openvino.Core, case: HostCase, folder: Path) -> None:
    """Through each form that OpenVINO keeps a network in."""
    network, path = core.read_model(case.model()), folder / f"{case.operator}.xml"
    openvino.save_model(network, path, compress_to_fp16=False)
    assert f'type="{case.operator}" version="edgekit"' in path.read_text()
    weights = openvino.Tensor(np.fromfile(path.with_suffix(".bin"), np.uint8))
    compiled = core.compile_model(network, "CPU", CONFIG)
    again = {
        "file": core.compile_model(core.read_model(path), "CPU", CONFIG),
        "bytes": core.compile_model(core.read_model(path.read_bytes(), weights), "CPU", CONFIG),
        "export": core.import_model(compiled.export_model(), "CPU", CONFIG),
    }
    cached = {**CONFIG, "CACHE_DIR": str(folder / "cache")}
    for turn in ("filled", "from the cache"):
        again[turn] = core.compile_model(core.read_model(path), "CPU", cached)
    assert again["from the cache"].get_property("LOADED_FROM_CACHE")
    for form, model in again.items():
        for feed, expected in zip(case.feeds, case.expected(), strict=True):
            got = model.create_infer_request().infer(list(feed))[0]
            case.check(got, expected)
            assert np.array_equal(got, run(core, case.model(), list(feed)), equal_nan=True), form


def sample_volumes(core: openvino.Core) -> None:
    """The standard GridSample of volumes, in every mode and type, as GridSample3d defines it."""
    rng = np.random.default_rng(8)
    image = rng.standard_normal((2, 3, 5, 6, 7), np.float32)
    grid = rng.uniform(-1.4, 1.4, (2, 3, 4, 17, 3)).astype(np.float32)
    reference = opset.OPERATORS["GridSample3d"].reference
    for (version, modes), padding, corners in itertools.product(MODES, PADDINGS, (0, 1)):
        for mode in modes:
            options = {"mode": mode, "padding_mode": padding, "align_corners": corners}
            got = run(core, grid_sample(image.shape, grid.shape, version, **options), [image, grid])
            named = {**options, "mode": mode.removeprefix("bi")}
            wanted = reference(image, grid, **named)
            check(got, wanted)
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    for pair in itertools.product(kinds, kinds):
        feeds = [
            array.astype(helper.tensor_dtype_to_np_dtype(kind))
            for array, kind in zip((image, grid), pair, strict=True)
        ]
        check(run(core, grid_sample(image.shape, grid.shape, 20, kinds=pair), feeds), reference(*feeds))
    # Axes that nothing is known of, where the grid's number tells.
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("GridSample", ["image", "grid"], ["out"])],
            "half known",
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, None)],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(grid, "grid")],
        ),
        opset_imports=[helper.make_opsetid("", 16)],
        ir_version=10,
    )
    check(run(core, model.SerializeToString(), [image]), reference(image, grid))


def check(got: np.ndarray, wanted: np.ndarray) -> None:
    assert got.dtype == wanted.dtype
    share = TOLERANCE["float16" if got.dtype == np.float16 else "float32"]
    np.testing.assert_allclose(got, wanted, rtol=0, atol=share * np.abs(wanted).max())


def evaluate(model: openvino.Model, case: HostCase) -> None:
    """Outside any device, where nothing widens float16 first, as the CPU of x86 does."""
    for feed, expected in zip(case.feeds, case.expected(), strict=True):
        out = openvino.Tensor(np.zeros_like(expected))
        assert model.evaluate([out], [openvino.Tensor(array) for array in feed])
        case.check(np.array(out.data), expected)


PARTS = {part.__name__: part for part in (stock, library, in_python, pointers)}

if __name__ == "__main__":
    PARTS[sys.argv[1]](openvino.Core(), Path(sys.argv[2]))
