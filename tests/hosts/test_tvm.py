"""The operators in TVM: the table of cases, in networks, whose threads, what is copied, what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import tvm
import tvm_ffi
from backends.backend_models import TARGET, weights
from hosts.cases import HostCase, cases
from hosts.probes import last_call
from hosts.vectors import Vector, vectors
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from tvm.relax.frontend.onnx import onnx_frontend
from tvm.runtime.vm import VirtualMachine

from edgekit import schema
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact, ArtifactInfo
from edgekit.backends.tvm import importer
from edgekit.backends.tvm.compiler import export
from edgekit.errors import CompileError, SessionError
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.hosts import build, elf
from edgekit.hosts import tvm as kernels
from edgekit.spec import TensorSpec

CASES = list(cases())
VECTORS = list(vectors())
HERE = build.Platform.here()
WARP = next(case for case in CASES if case.label == "Warp with the defaults")


def compiled(model: bytes | onnx.ModelProto, path: Path) -> Any:
    """The model's library, loaded."""
    model = onnx.ModelProto.FromString(model) if isinstance(model, bytes) else model
    export(ir.from_proto(model), path, {}, HERE)
    return tvm.runtime.load_module(str(path))


def run(library: Any, *feeds: np.ndarray) -> np.ndarray:
    return np.from_dlpack(VirtualMachine(library, tvm.cpu())["main"](*map(tvm_ffi.from_dlpack, feeds)))


def function(library: Path, operator: str) -> Callable[..., None]:
    """What a library has for an operator."""
    loaded = tvm.runtime.load_module(str(library))
    found: Callable[..., None] = loaded.get_function(f"edgekit_{operator}", query_imports=True)
    return found


def parse(text: str, **values: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20, "edgekit" : {opset.VERSION}]> {text}'
    )
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, name) for name, v in values.items())
    return model


@pytest.fixture(scope="module")
def warp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of a network of one Warp."""
    path = tmp_path_factory.mktemp("warp") / "warp.so"
    compiled(WARP.model(), path)
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_cases(case: HostCase, tmp_path: Path) -> None:
    library = compiled(case.model(), tmp_path / "model.so")
    for feed, expected in zip(case.feeds, case.expected(), strict=True):
        case.check(run(library, *feed), expected)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name.removeprefix("test_"))
def test_onnx_s_own_examples(vector: Vector, tmp_path: Path) -> None:
    """Unchanged: the importer gives us the volumes, and leaves images to TVM."""
    library = compiled(vector.model, tmp_path / "model.so")
    vector.check(run(library, *vector.feeds))
    assert library.implements_function("edgekit_GridSample3d", query_imports=True) == vector.volumetric


def test_a_library_has_every_operator(warp: Path) -> None:
    """And shows nothing else of ours."""
    shown = {name for name in elf.read(warp).exported if not name.startswith("__tvm_ffi__")}
    functions = {f"__tvm_ffi_edgekit_{name}" for name in opset.OPERATORS}
    assert shown == functions | {"__TVMBackendParallelLaunch", "edgekit_last_call"}


REGISTRATION = """
    registration (float[1, 2, d, h, w] pair) => (float[1, 1, d, h, w] moved) {
        moving, fixed = Split <axis = 1, num_outputs = 2> (pair)
        hidden = Conv <pads = [1, 1, 1, 1, 1, 1]> (pair, w0, b0)
        positive = Relu (hidden)
        velocity = Conv <pads = [1, 1, 1, 1, 1, 1]> (positive, w1, b1)
        flow = edgekit.IntegrateVelocity <steps = 3> (velocity)
        warped = edgekit.Warp <boundary = "mirror"> (moving, flow)
        moved = Sigmoid (warped)
    }"""


def registration(lengths: str = "d, h, w") -> onnx.ModelProto:
    """A network with convolutions around our operators."""
    values = {"w0": weights(4, 2, 3, 3, 3), "b0": weights(4, 1)[:, 0], "w1": weights(3, 4, 3, 3, 3, seed=1)}
    text = REGISTRATION.replace("d, h, w", lengths)
    return parse(text, **values, b1=weights(3, 1, seed=2)[:, 0])


def reference(model: onnx.ModelProto, **feeds: np.ndarray) -> np.ndarray:
    """What onnx's evaluator makes of a network, with our references for our operators."""

    def evaluated(operator: opset.Operator) -> type[OpRun]:
        def _run(self: OpRun, *inputs: np.ndarray, **attributes: Any) -> tuple[np.ndarray]:
            said = {a.name: _value(a) for a in self.onnx_node.attribute}
            return (operator.reference(*inputs, **said),)

        return type(operator.name, (OpRun,), {"op_domain": opset.DOMAIN, "_run": _run})

    new = [evaluated(operator) for operator in opset.OPERATORS.values()]
    return ReferenceEvaluator(model, new_ops=new).run(None, feeds)[0]


def _value(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def test_inside_a_network_of_varying_lengths(tmp_path: Path) -> None:
    model = registration()
    library = compiled(model, tmp_path / "model.so")
    rng = np.random.default_rng(3)
    for shape in ((1, 2, 5, 6, 7), (1, 2, 9, 1, 16)):
        pair = rng.standard_normal(shape).astype(np.float32)
        np.testing.assert_allclose(run(library, pair), reference(model, pair=pair), atol=5e-6)


def test_a_volume_of_another_type_than_its_grid(tmp_path: Path) -> None:
    """ONNX lets them differ."""
    text = """mixed (float16[1, 1, 4, 5, 6] x, float[1, 2, 3, 4, 3] grid) => (float16[1, 1, 2, 3, 4] y) {
        y = GridSample (x, grid)
    }"""
    x = np.random.default_rng(0).standard_normal((1, 1, 4, 5, 6)).astype(np.float16)
    grid = np.random.default_rng(1).uniform(-1, 1, (1, 2, 3, 4, 3)).astype(np.float32)
    library = compiled(parse(text), tmp_path / "model.so")
    expected = opset.OPERATORS["GridSample3d"].reference(x, grid)
    np.testing.assert_allclose(run(library, x, grid), expected, atol=2e-3)


LOST_LENGTHS = """
    lost (float[1, 1, 4, 5, 6] x, float[1, 3, 4, 5, 6] flow, int64[5] start) => (float[1, 1, d, h, w] moved) {
        part = Slice (x, start, stop)
        same = Slice (flow, begin, stop)
        moved = edgekit.Warp (part, same)
    }"""


def test_lengths_that_the_importer_lost(tmp_path: Path) -> None:
    everything = np.array([1, 3, 4, 5, 6], np.int64)
    model = parse(LOST_LENGTHS, stop=everything, begin=np.zeros(5, np.int64))
    rng = np.random.default_rng(4)
    x = rng.standard_normal((1, 1, 4, 5, 6)).astype(np.float32)
    flow = rng.standard_normal((1, 3, 4, 5, 6)).astype(np.float32)
    start = np.zeros(5, np.int64)
    got = run(compiled(model, tmp_path / "model.so"), x, flow, start)
    np.testing.assert_allclose(got, opset.OPERATORS["Warp"].reference(x, flow), atol=2e-6)


IMAGE = np.random.default_rng(6).standard_normal((1, 2, 4, 5, 6)).astype(np.float32)
FLOW = np.random.default_rng(7).standard_normal((1, 3, 4, 5, 6)).astype(np.float32)


def test_views_are_read_where_they_begin(warp: Path) -> None:
    """From a byte offset on, with strides that say what there is anyway."""
    out = np.empty_like(IMAGE)
    both = np.concatenate([IMAGE, 9 * IMAGE], axis=0)
    second = tvm.runtime.tensor(both)._create_view(IMAGE.shape, relative_byte_offset=IMAGE.nbytes)
    function(warp, "Warp")(second, tvm_ffi.from_dlpack(FLOW), 1, "edge", tvm_ffi.from_dlpack(out))
    expected = opset.OPERATORS["Warp"].reference(both[1:], FLOW)
    np.testing.assert_allclose(out, expected, atol=2e-5)


# TVM-FFI alone: there is no pool of TVM's threads.
WITHOUT_TVM = """
import sys
import numpy as np
import tvm_ffi
warp = tvm_ffi.load_module(sys.argv[1]).get_function("edgekit_Warp")
image, flow = (np.load(path) for path in sys.argv[2:4])
out = np.empty_like(image)
warp(*map(tvm_ffi.from_dlpack, (image, flow)), 1, "edge", tvm_ffi.from_dlpack(out))
np.save(sys.argv[4], out)
assert "libtvm_runtime" not in open("/proc/self/maps").read()
"""


def test_the_functions_as_a_library_of_their_own(tmp_path: Path) -> None:
    """For users of TVM-FFI, on the calling thread where nobody has others."""
    paths = [str(tmp_path / name) for name in ("image.npy", "flow.npy", "out.npy")]
    np.save(paths[0], IMAGE)
    np.save(paths[1], FLOW)
    library = build.library(kernels.adapter())
    subprocess.run([sys.executable, "-c", WITHOUT_TVM, str(library), *paths], check=True)
    expected = opset.OPERATORS["Warp"].reference(IMAGE, FLOW)
    np.testing.assert_allclose(np.load(paths[2]), expected, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({0: IMAGE.swapaxes(2, 3)}, r"image must be C-contiguous, got strides \[240, 120, 6, 30, 1\] for"),
        ({0: IMAGE.astype(np.float64)}, "image must be float32 or float16"),
        ({0: IMAGE.astype(np.float16)}, "inputs and output must be of one type"),
        ({0: 7}, "image must be a tensor"),
        ({1: FLOW[:, :2].copy()}, "flow_vox must have 3 components, got 2"),
        ({2: 2}, "order must be 0, 1 or 3, got 2"),
        ({2: 1.0}, "order must be an integer"),
        ({3: 3}, "boundary must be a string"),
        ({3: "nowhere"}, "boundary must be 'zero', 'edge', 'mirror', 'reflect' or 'wrap', got 'nowhere'"),
        ({4: IMAGE[:, :1].copy()}, r"the output must be \[1, 2, 4, 5, 6\], got \[1, 1, 4, 5, 6\]"),
        ({4: None}, "moved must be a tensor"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_reaches_the_caller_in_our_words(
    warp: Path, change: dict[int, Any], message: str
) -> None:
    arguments: list[Any] = [IMAGE, FLOW, 1, "edge", np.empty_like(IMAGE)]
    for index, value in change.items():
        arguments[index] = value
    given = [tvm_ffi.from_dlpack(a) if isinstance(a, np.ndarray) else a for a in arguments]
    with pytest.raises(ValueError, match=f"^Warp: {message}"):
        function(warp, "Warp")(*given)
    with pytest.raises(ValueError, match=r"^Warp: wants 5 arguments, got 4$"):
        function(warp, "Warp")(*given[:4])


def test_nothing_is_copied(warp: Path) -> None:
    """The kernel reads and writes the very memory of the network's inputs and output."""
    feeds = [tvm.runtime.tensor(array) for array in WARP.feeds[0]]
    result = VirtualMachine(tvm.runtime.load_module(str(warp)), tvm.cpu())["main"](*feeds)
    addresses = [np.from_dlpack(tensor).ctypes.data for tensor in (*feeds, result)]
    assert last_call(warp, 2) == addresses
    WARP.check(np.from_dlpack(result), WARP.expected()[0])


def graph() -> Graph:
    """The network for a volume that is large enough to keep threads busy."""
    dims = (1, 2, 24, 64, 64)
    pair = TensorSpec("pair", "float32", dims, "NCDHW")
    moved = TensorSpec("moved", "float32", (1, 1, *dims[2:]), "NCDHW")
    return Graph(ir.from_proto(registration("24, 64, 64")), (pair,), (moved,))


@pytest.fixture(scope="module")
def made() -> tuple[Artifact, dict[str, np.ndarray], np.ndarray]:
    """The network from the backend, an input, and its first output, in the child that compiled it."""
    feeds = {"pair": np.random.default_rng(8).standard_normal((1, 2, 24, 64, 64)).astype(np.float32)}
    compiled = BACKENDS["tvm"].compile(graph(), TARGET, sample=feeds)
    return compiled.artifact, feeds, compiled.outputs["moved"]


def test_the_backend_compiles_and_opens(made: Any) -> None:
    artifact, feeds, first = made
    assert artifact.info.files == ("model.so",), "the kernels are in it"
    moved = BACKENDS["tvm"].open(artifact, threads=1).run(feeds)["moved"]
    np.testing.assert_array_equal(moved, first)
    np.testing.assert_allclose(moved, reference(registration(), **feeds), atol=5e-6)


def test_two_compiles_give_the_same_bytes(made: Any, tmp_path: Path) -> None:
    compiled(registration("24, 64, 64"), tmp_path / "model.so")
    assert (tmp_path / "model.so").read_bytes() == made[0].files["model.so"]


# Only the runtime's library is there: what a device without the compiler has.
FRESH = """
import sys
import numpy as np
import tvm.runtime
import tvm_ffi
from tvm.runtime.vm import VirtualMachine
main = VirtualMachine(tvm.runtime.load_module(sys.argv[1]), tvm.cpu())["main"]
pair = np.load(sys.argv[2])
np.save(sys.argv[3], np.from_dlpack(main(tvm.runtime.tensor(pair))))
maps = open("/proc/self/maps").read()
print([name for name in ("libtvm_runtime", "libtvm_compiler", "edgekit/_C", "libedgekit") if name in maps],
      [name for name in ("tvm.relax", "edgekit", "onnx") if name in sys.modules])
"""


def test_a_fresh_process_needs_the_runtime_alone(made: Any, tmp_path: Path) -> None:
    artifact, feeds, first = made
    (tmp_path / "model.so").write_bytes(artifact.files["model.so"])
    np.save(tmp_path / "pair.npy", feeds["pair"])
    arguments = [str(tmp_path / name) for name in ("model.so", "pair.npy", "moved.npy")]
    environment = {"PATH": os.environ["PATH"], "TVM_USE_RUNTIME_LIB": "1"}
    done = subprocess.run(
        [sys.executable, "-c", FRESH, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['libtvm_runtime'] []\n"
    np.testing.assert_array_equal(np.load(tmp_path / "moved.npy"), first)


# Runs a network for a second of processor time, and tells the share that each of its threads had.
THREADS = """
import json, os, sys, time
from pathlib import Path
import numpy as np
from edgekit import schema
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact, ArtifactInfo
from edgekit.errors import SessionError
folder = Path(sys.argv[1])
info = schema.decode(ArtifactInfo, json.loads((folder / "info").read_text()), error=SessionError, where="")
artifact = Artifact(info, {"model.so": (folder / "model.so").read_bytes()})
session = BACKENDS["tvm"].open(artifact, threads=int(sys.argv[2]))
feeds = {"velocity": np.ones(info.inputs[0].largest_shape, np.float32)}
def used():
    fields = {task: Path("/proc/self/task", task, "stat").read_text().rpartition(")")[2].split()
              for task in os.listdir("/proc/self/task")}
    return {task: int(told[11]) + int(told[12]) for task, told in fields.items()}
session.run(feeds)
before, start = used(), time.process_time()
while time.process_time() - start < 1:
    session.run(feeds)
ticks = {task: count - before.get(task, 0) for task, count in used().items()}
print(json.dumps(sorted((count / sum(ticks.values()) for count in ticks.values() if count), reverse=True)))
"""


@pytest.fixture(scope="module")
def integration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a network that is nothing but one operator."""
    dims = (1, 3, 32, 64, 64)
    text = "integration (float[{0}] velocity) => (float[{0}] flow) {{ flow = edgekit.{1} (velocity) }}"
    model = parse(text.format(", ".join(map(str, dims)), "IntegrateVelocity"))
    specs = [TensorSpec(name, "float32", dims, "NCDHW") for name in ("velocity", "flow")]
    made = Graph(ir.from_proto(model), (specs[0],), (specs[1],))
    feeds = {"velocity": np.zeros(dims, np.float32)}
    artifact = BACKENDS["tvm"].compile(made, TARGET, sample=feeds).artifact
    folder = tmp_path_factory.mktemp("integration")
    (folder / "info").write_text(json.dumps(schema.encode(artifact.info)))
    (folder / "model.so").write_bytes(artifact.files["model.so"])
    return folder


def shares(folder: Path, threads: int) -> list[float]:
    """Of the processor time, each thread's that had any."""
    # Idle threads of TVM's spin for a while, which would look like work.
    environment = {**os.environ, "TVM_THREAD_POOL_SPIN_COUNT": "0"}
    command = [sys.executable, "-c", THREADS, str(folder), str(threads)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: list[float] = json.loads(done.stdout)
    return found


def test_the_threads_are_those_of_the_session(integration: Path) -> None:
    alone = shares(integration, 1)
    assert alone[0] > 0.97, alone
    both = shares(integration, 2)
    assert sum(both[:2]) > 0.97 and both[1] > 0.25, both


def test_for_another_machine(tmp_path: Path) -> None:
    """It links, is of that machine, and has its kernels; tests/hosts/test_arm64.py runs it."""
    other = build.Platform("aarch64", "2.31")
    options = {"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}
    path = tmp_path / "model.so"
    export(ir.from_proto(registration("5, 6, 7")), path, options, other)
    library, content = elf.read(path), path.read_bytes()
    assert library.arch == "aarch64"
    assert {f"__tvm_ffi_edgekit_{name}" for name in opset.OPERATORS} <= set(library.exported)
    info = ArtifactInfo("tvm", "engine", ("model.so",), (), (), "cpu", {}, "", native=True)
    with pytest.raises(SessionError, match=r"model\.so is machine code for aarch64, this") as caught:
        BACKENDS["tvm"].open(Artifact(info, {"model.so": content}))
    assert "--target" in (caught.value.hint or "")


def test_the_importer_is_as_it_was_afterwards() -> None:
    own = onnx_frontend._get_convert_map
    known = set(own())
    with importer.importable() as used:
        assert set(onnx_frontend._get_convert_map()) == known | set(opset.OPERATORS)
    assert onnx_frontend._get_convert_map is own and set(own()) == known and not used
    with pytest.raises(KeyboardInterrupt), importer.importable():
        raise KeyboardInterrupt
    assert onnx_frontend._get_convert_map is own


def test_an_importer_of_another_make(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(onnx_frontend, "_get_convert_map")
    with (
        pytest.raises(CompileError, match="want its function _get_convert_map, got none") as caught,
        importer.importable(),
    ):
        pass
    assert "apache-tvm" in (caught.value.hint or "")


def test_what_is_refused_before_compiling(monkeypatch: pytest.MonkeyPatch) -> None:
    assert BACKENDS["tvm"].refusals(graph(), TARGET) == []
    changed = graph().edit()
    for node in changed.graph:
        node.op_type = "Unwarp" if node.op_type == "Warp" else node.op_type
    (refusal,) = BACKENDS["tvm"].refusals(graph().with_model(changed, "changed"), TARGET)
    assert str(refusal).startswith("operators that its importer does not know (Unwarp ")
    monkeypatch.setattr(kernels, "_HEADER", "tvm/ffi/nothing.h")
    (refusal,) = BACKENDS["tvm"].refusals(graph(), TARGET)
    assert str(refusal).startswith("edgekit's operators are compiled with TVM's headers: want tvm_ffi with")
    assert "IntegrateVelocity" in str(refusal) and refusal.hint == "pip install 'edgekit[tvm]'"
