"""What every registered backend has to do. A new backend is covered by its line in the registry."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import backend_models as models
import numpy as np
import pytest
from backend_models import NETWORKS, TARGET, sample

from edgekit import isolation, schema
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact, Compiled
from edgekit.errors import SessionError, UnsupportedError, UsageError
from edgekit.graph.graph import Graph
from edgekit.target import known

# Network and backend that do not go together, and a part of the reason. Anything not listed here has to work.
REFUSED = {
    ("openvino", "unpooled"): r"operators that its importer does not know \(MaxUnpool ",
    ("tvm", "unpooled"): r"MaxPool with indices \(MaxPool ",
    ("tvm", "varying_unet"): r"lengths that vary.* \(MaxPool .*, ConvTranspose ",
    ("tvm", "padded_by_shape"): r"Pad with widths that are computed while running \(Pad ",
    ("tvm", "float16"): r"layers in 16 bits.* \(Conv ",
    ("tvm", "bfloat16"): r"layers in 16 bits.* \(Conv ",
    ("onnxruntime", "bfloat16"): r"operators in bfloat16 \(Conv ",
    ("onnxruntime", "float64"): r"operators in float64 \(Conv ",
}
# Largest difference from the reference, over the largest value of the reference.
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2}
DEFAULT_TOLERANCE = 1e-4

# What compiles for other devices alone has tests of its own: its networks do not run here.
ON_PROCESSORS = [name for name in BACKENDS if "cpu" in BACKENDS[name].devices]
PAIRS = [(backend, network) for backend in ON_PROCESSORS for network in NETWORKS]
WORKING = [pair for pair in PAIRS if pair not in REFUSED]
each_backend = pytest.mark.parametrize("backend", ON_PROCESSORS)
each_working = pytest.mark.parametrize(("backend", "network"), WORKING)


@functools.cache
def net(network: str) -> Graph:
    return NETWORKS[network]()


@functools.cache
def compiled(backend: str, network: str) -> Compiled:
    return BACKENDS[backend].compile(net(network), TARGET, sample=sample(net(network)), threads=1)


@functools.cache
def expected(network: str, seed: int = 0, largest: bool = False) -> dict[str, np.ndarray]:
    reference = compiled("reference", network)
    with_seed = sample(net(network), seed, largest=largest)
    session = BACKENDS["reference"].open(reference.artifact)
    return session.run(with_seed)


def assert_close(got: dict[str, np.ndarray], want: dict[str, np.ndarray], network: str) -> None:
    assert list(got) == list(want)
    for name, reference in want.items():
        assert (got[name].dtype, got[name].shape) == (reference.dtype, reference.shape), name
        assert np.ptp(np.asarray(reference, np.float64)) > 0, f"{name} is constant and proves nothing"
        if reference.dtype.kind != "f":
            np.testing.assert_array_equal(got[name], reference)
            continue
        scale = np.abs(np.asarray(reference, np.float64)).max()
        difference = np.abs(np.asarray(got[name], np.float64) - np.asarray(reference, np.float64)).max()
        assert difference <= TOLERANCE.get(network, DEFAULT_TOLERANCE) * scale, name


@each_working
def test_compiles_in_a_child_and_agrees_with_the_reference(backend: str, network: str) -> None:
    assert BACKENDS[backend].refusals(net(network), TARGET) == []
    result = compiled(backend, network)
    assert_close(result.outputs, expected(network), network)
    info = result.artifact.info
    assert info.files == tuple(result.artifact.files) and info.files
    assert (info.inputs, info.outputs) == (net(network).inputs, net(network).outputs)
    assert info.built_with.keys() == {r.distribution for r in BACKENDS[backend].requirements}
    assert info.source_digest == net(network).digest()


@each_working
def test_an_opened_session_repeats_the_childs_run_and_owns_nothing_of_the_callers(
    backend: str, network: str
) -> None:
    session = BACKENDS[backend].open(compiled(backend, network).artifact, threads=1)
    feeds = sample(net(network))
    before = {name: array.copy() for name, array in feeds.items()}
    first = session.run(feeds)
    kept = {name: array.copy() for name, array in first.items()}
    for name, array in compiled(backend, network).outputs.items():
        np.testing.assert_array_equal(first[name], array)
    other = session.run(sample(net(network), seed=1))
    again = session.run(feeds)
    for name in first:
        np.testing.assert_array_equal(first[name], kept[name], "an output changed after its run")
        np.testing.assert_array_equal(again[name], first[name])
        assert first[name].flags.writeable and first[name].flags.c_contiguous
        for array in (*feeds.values(), other[name], again[name]):
            assert not np.shares_memory(first[name], array)
        first[name].fill(0)
    for name in feeds:
        np.testing.assert_array_equal(feeds[name], before[name], "an input changed")
        feeds[name].setflags(write=False)
    assert_close(session.run(feeds), expected(network), network)
    session.close()


@pytest.mark.parametrize(("backend", "network"), list(REFUSED))
def test_what_is_refused_is_refused_before_compiling(
    backend: str, network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusals = BACKENDS[backend].refusals(net(network), TARGET)
    assert any(re.match(REFUSED[backend, network], str(refusal)) for refusal in refusals), refusals
    for refusal in refusals:
        assert refusal.hint and refusal.nodes
        assert {node.split(" ", 1)[0] for node in refusal.nodes} <= {
            node.op_type for node in net(network).model.graph.all_nodes()
        }
    monkeypatch.setattr(isolation, "run", lambda *_, **__: pytest.fail("a child was started"))
    with pytest.raises(UnsupportedError, match=f"{BACKENDS[backend].title} does not take this model"):
        BACKENDS[backend].compile(net(network), TARGET, sample=sample(net(network)))


def test_the_reference_agrees_with_torch() -> None:
    import torch
    from torch.nn import functional as F

    graph = net("unet2d")
    w = {
        v.name: torch.from_numpy(v.const_value.numpy().copy())
        for v in graph.model.graph.initializers.values()
    }
    x = torch.from_numpy(sample(graph)["image"])
    a = F.instance_norm(F.conv2d(x, w["wa"], w["ba"], padding=1), weight=w["scale"], bias=w["shift"])
    a = F.leaky_relu(a, 0.1)
    b = F.relu(F.conv2d(F.max_pool2d(a, 2), w["wb"], padding=1))
    u = F.conv_transpose2d(b, w["wu"], w["bu"], stride=2)
    logits = F.conv2d(torch.cat([a, u], 1), w["wl"], w["bl"], padding=1)
    assert_close({"logits": logits.numpy()}, expected("unet2d"), "unet2d")


@each_backend
def test_lengths_may_vary_from_run_to_run(backend: str) -> None:
    session = BACKENDS[backend].open(compiled(backend, "varying").artifact, threads=1)
    for largest in (False, True, False):
        feeds = sample(net("varying"), 3, largest=largest)
        assert_close(session.run(feeds), expected("varying", 3, largest), "varying")


@each_backend
def test_any_number_of_threads_gives_the_same(backend: str) -> None:
    artifact = compiled(backend, "unet3d").artifact
    for threads in (2, 0, 1):
        session = BACKENDS[backend].open(artifact, threads=threads)
        assert_close(session.run(sample(net("unet3d"))), expected("unet3d"), "unet3d")


@each_backend
def test_two_compiles_give_the_same_bytes(backend: str) -> None:
    again = BACKENDS[backend].compile(net("blocks"), TARGET, sample=sample(net("blocks")), threads=1)
    assert dict(again.artifact.files) == dict(compiled(backend, "blocks").artifact.files)


@each_backend
def test_a_closed_session_says_so(backend: str) -> None:
    session = BACKENDS[backend].open(compiled(backend, "unet2d").artifact)
    session.close()
    session.close()
    with pytest.raises(SessionError, match="the session is closed"):
        session.run(sample(net("unet2d")))


@pytest.mark.parametrize("backend", [name for name in ON_PROCESSORS if name != "reference"])
def test_the_vendors_exceptions_become_ours(backend: str) -> None:
    session = BACKENDS[backend].open(compiled(backend, "unet2d").artifact, threads=1)
    image = sample(net("unet2d"))["image"]
    with pytest.raises(SessionError, match=f"{backend} failed while running: "):
        session.run({"image": image[..., :4].copy()})
    with pytest.raises(SessionError, match="failed while running"):
        session.run({"image": image.astype(np.float64)})
    assert_close(session.run({"image": image}), expected("unet2d"), "unet2d")


@each_backend
def test_damaged_bytes_do_not_open(backend: str) -> None:
    artifact = compiled(backend, "unet2d").artifact
    garbage = dict.fromkeys(artifact.files, b"garbage")
    reasons = "could not open the artifact|is machine code for no known system"
    with pytest.raises(SessionError, match=reasons):
        BACKENDS[backend].open(Artifact(artifact.info, garbage))


@each_backend
def test_opening_leaves_no_file_behind(backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    session = BACKENDS[backend].open(compiled(backend, "unet2d").artifact, threads=1)
    assert list(tmp_path.iterdir()) == []
    session.run(sample(net("unet2d")))


@each_backend
def test_options(backend: str) -> None:
    for target in known().values():
        chosen = BACKENDS[backend].choose_options(target, {})
        assert chosen.keys() == BACKENDS[backend].options.keys()
    with pytest.raises(UsageError, match="has no option 'turbo'"):
        BACKENDS[backend].choose_options(TARGET, {"turbo": True})


@each_backend
def test_availability(backend: str) -> None:
    found = BACKENDS[backend].available(load=True)
    assert found.state == "found"
    assert found.versions.keys() == {r.distribution for r in BACKENDS[backend].requirements}


FRESH = """
import json, sys, time
sys.path[:] = json.loads(sys.argv[1])
used = []
sys.addaudithook(lambda event, _: used.append(event) if event.startswith("socket.") else None)
from pathlib import Path
import numpy as np
from edgekit import schema
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact, ArtifactInfo
from edgekit.errors import SessionError
folder = Path(sys.argv[2])
info = schema.decode(ArtifactInfo, json.loads((folder / "info").read_text()), error=SessionError, where="")
backend = BACKENDS[info.backend]
session = backend.open(Artifact(info, {name: (folder / name).read_bytes() for name in info.files}), threads=1)
feeds = {spec.name: np.full(spec.largest_shape, 0.5, spec.dtype) for spec in info.inputs}
session.run(feeds)
wall, busy = time.perf_counter(), time.process_time()
while time.perf_counter() - wall < 0.5:
    session.run(feeds)
wall, busy = time.perf_counter() - wall, time.process_time() - busy
print(json.dumps({"modules": sorted(sys.modules), "used": used, "share": busy / wall}))
"""


@each_backend
def test_a_fresh_process_opens_without_torch_onnx_or_network(backend: str, tmp_path: Path) -> None:
    arguments = saved(compiled(backend, "unet3d").artifact, tmp_path)
    command = [sys.executable, "-c", FRESH, *arguments]
    answer = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    heavy = {"torch", "onnx_ir", "onnxscript", "openvino_telemetry"} | (
        set() if backend == "reference" else {"onnx"}
    )
    assert not heavy & set(answer["modules"])
    assert answer["used"] == []
    if backend != "reference":
        assert answer["share"] < 1.3, "one thread was asked for"


INTERRUPTED = """
import json, os, signal, sys
sys.path[:] = json.loads(sys.argv[1])
import numpy as np
from edgekit import schema
from edgekit.backends import BACKENDS
from edgekit.backends.base import Artifact, ArtifactInfo
from edgekit.errors import SessionError
from pathlib import Path
folder = Path(sys.argv[2])
info = schema.decode(ArtifactInfo, json.loads((folder / "info").read_text()), error=SessionError, where="")
artifact = Artifact(info, {name: (folder / name).read_bytes() for name in info.files})
sessions = [BACKENDS[info.backend].open(artifact, threads=1) for _ in range(3)]
while sessions:
    session = sessions.pop(0)
    session.run({spec.name: np.full(spec.largest_shape, 0.5, spec.dtype) for spec in info.inputs})
    session.close()
    del session
try:
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
except KeyboardInterrupt:
    print("interrupted")
"""


def saved(artifact: Artifact, folder: Path) -> list[str]:
    """The artifact in a folder, as arguments of the programs here."""
    (folder / "info").write_text(json.dumps(schema.encode(artifact.info)))
    for name, content in artifact.files.items():
        (folder / name).write_bytes(content)
    return [json.dumps(sys.path), str(folder)]


@each_backend
def test_an_interrupt_after_closing_is_only_that(backend: str, tmp_path: Path) -> None:
    arguments = saved(compiled(backend, "unet2d").artifact, tmp_path)
    command = [sys.executable, "-c", INTERRUPTED, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr


NO_NETWORK = """
import json, sys
sys.path[:] = json.loads(sys.argv[1])
def no_network(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(no_network)
from pathlib import Path
from edgekit import target
from edgekit.backends import BACKENDS
from edgekit.backends.base import ArtifactInfo
backend = BACKENDS[sys.argv[2]]
backend.load()
info = ArtifactInfo(backend.name, "engine", (), (), (), "", {}, "", dict(backend.options), backend.native)
backend._compile(Path(sys.argv[3]), info, target.find("cpu"), Path(sys.argv[4]))
assert "openvino_telemetry" not in sys.modules and "torch" not in sys.modules
"""


@each_backend
def test_compiling_makes_no_network_call(backend: str, tmp_path: Path) -> None:
    net("unet2d").save(tmp_path / "model.onnx")
    (tmp_path / "out").mkdir()
    arguments = [json.dumps(sys.path), backend, str(tmp_path / "model.onnx"), str(tmp_path / "out")]
    subprocess.run([sys.executable, "-c", NO_NETWORK, *arguments], check=True)
    assert list((tmp_path / "out").iterdir())


def test_the_importer_of_openvino_still_lacks_what_is_refused() -> None:
    """Where a release learns one of these, its refusal has to go."""
    BACKENDS["openvino"].load()
    import openvino

    for network in ("warp3d", "unpooled"):
        with pytest.raises(RuntimeError):
            openvino.Core().read_model(net(network).to_bytes())


def test_tvm_tells_what_it_cannot_run_here_and_refuses_unknown_operators() -> None:
    tvm = BACKENDS["tvm"]
    other = "aarch64" if TARGET.arch == "x86_64" else "x86_64"
    assert f"machine code for {other}" in tvm.foreign(dataclasses.replace(TARGET, arch=other))
    assert "no_such_feature" in tvm.foreign(dataclasses.replace(TARGET, cpu_features=("no_such_feature",)))
    assert tvm.foreign(TARGET) == ""
    with pytest.raises(UnsupportedError, match=f"machine code for {other}"):
        tvm.require_here(dataclasses.replace(TARGET, arch=other))
    (refusal,) = tvm.refusals(models.lstm(), TARGET)
    assert str(refusal).startswith("operators that its importer does not know (LSTM ")
