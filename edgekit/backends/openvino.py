"""OpenVINO on the CPU.

The artifact is OpenVINO's own form of the network (``model.xml`` with the structure, ``model.bin`` with the
weights), in float32 and good for every CPU; it is optimised for the machine at hand when it is opened.

Where the network has operators of edgekit's, or a GridSample of volumes, which OpenVINO has not, their
library goes with it, for one architecture and one release of OpenVINO. Where nothing can build that, they run
in Python, and a file of the artifact says so.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import platform
import re
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from edgekit.backends import openvino_operators
from edgekit.backends.base import (
    Artifact,
    ArtifactInfo,
    Backend,
    NetworkSession,
    Refusal,
    as_file,
    node_names,
)
from edgekit.errors import MismatchError, SessionError, UnavailableError
from edgekit.graph import opset
from edgekit.graph.graph import Graph
from edgekit.hosts import build
from edgekit.hosts import openvino as host
from edgekit.registry import Requirement
from edgekit.spec import Array
from edgekit.target import Target

_XML, _BIN = "model.xml", "model.bin"
# Says why operators run in Python, in artifacts where they do.
_PYTHON = "operators-in-python.txt"
# How OpenVINO's form of a network names the operators.
_OPSET = f'version="{opset.DOMAIN}"'.encode()
# Half of the structure's text is indentation: beside weights in bytes that counts.
_BETWEEN_TAGS = re.compile(rb">\s+<")
# How many axes a batch of them has.
_IMAGE, _VOLUME = 4, 5
_FLOATING = ("FLOAT", "FLOAT16", "DOUBLE")
# A network that was rewritten, while it is read.
_ROUNDED = "rounded-once.onnx"
# Operators whose results are numbers of their inputs.
_CHOOSING = ("MaxPool", "Concat")


# Operators of ONNX that its importer does not take (tried on 2026.4).
_MISSING = frozenset(
    {
        "BitCast",
        "CausalConvWithState",
        "CumProd",
        "DeformConv",
        "Det",
        "LinearAttention",
        "MaxUnpool",
        "MelWeightMatrix",
        "STFT",
        "SequenceInsert",
        "SequenceMap",
        "SplitToSequence",
        "TensorScatter",
        "TfIdfVectorizer",
    }
)


class OpenVino(Backend):
    """OpenVINO with its CPU device."""

    name: ClassVar[str] = "openvino"
    title: ClassVar[str] = "OpenVINO"
    requirements = (Requirement("openvino", "openvino", "openvino", "2026.0"),)
    domains = frozenset({"", opset.DOMAIN})
    library = "libedgekit_openvino.so"
    library_fits_one_version = True
    # Importing OpenVINO reports that to a statistics service on the network; without this package it cannot.
    unwanted = ("openvino_telemetry",)

    def _refusals(self, graph: Graph, target: Target) -> list[Refusal]:
        nodes = list(graph.model.graph.all_nodes())
        reasons = []
        missing = [node for node in nodes if node.op_type in _MISSING]
        if missing:
            reasons.append(
                Refusal(
                    "operators that its importer does not know",
                    node_names(missing),
                    "--backend onnxruntime",
                )
            )
        whole = [n for n in nodes if n.op_type == "GridSample" and _holds_integers(n.inputs[0])]
        if whole:
            reasons.append(
                Refusal("GridSample of integers", node_names(whole), "export the model in float32")
            )
        unknown = [n for n in nodes if n.domain == opset.DOMAIN and n.op_type not in opset.OPERATORS]
        if unknown:
            reasons.append(
                Refusal(
                    f"operators that version {opset.VERSION} of the domain {opset.DOMAIN} does not have",
                    node_names(unknown),
                    "pip install --upgrade edgekit",
                )
            )
        return reasons

    def notes(self, artifact: Artifact) -> tuple[str, ...]:
        """Why operators run in Python, if they do."""
        if _PYTHON not in artifact.files:
            return ()
        return (f"OpenVINO runs edgekit's operators in Python: {artifact.files[_PYTHON].decode().strip()}",)

    def _compile(self, model: Path, info: ArtifactInfo, target: Target, out: Path) -> None:
        import onnx_ir as ir
        import openvino

        given = ir.load(model)
        library, missing = _library(target) if _may_need_operators(given) else (b"", "")
        if _round_once(given):
            model = out / _ROUNDED
            ir.save(given, model)
        with _READING:
            own = _register(library) if library else _OPSET
            if missing:
                _register_python()
            network = _core().read_model(model)
        (out / _ROUNDED).unlink(missing_ok=True)
        _join_quantizations(network)
        # Half precision is a pass of edgekit's own, so that every backend gets the same numbers.
        openvino.save_model(network, out / _XML, compress_to_fp16=False)
        written = _BETWEEN_TAGS.sub(b"><", (out / _XML).read_bytes()).replace(own, _OPSET)
        (out / _XML).write_bytes(written)
        if _OPSET in written and library:
            (out / self.library).write_bytes(library)
        elif _OPSET in written:
            (out / _PYTHON).write_text(missing + "\n")
            print(missing, file=sys.stderr)

    def _open(self, artifact: Artifact, threads: int) -> NetworkSession:
        import numpy as np
        import openvino

        core = _core()
        weights = openvino.Tensor(np.frombuffer(artifact.files[_BIN], np.uint8))
        structure = artifact.files[_XML]
        with _READING, openvino_operators.running_on(threads):
            if artifact.info.library:
                _check_release(artifact.info)
                structure = structure.replace(_OPSET, _register(artifact.files[artifact.info.library]))
            elif _PYTHON in artifact.files:
                _register_python()
            network = core.read_model(structure, weights)
        compiled = core.compile_model(
            network,
            "CPU",
            {
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": threads,
                # The ARM plugin, and that of x86 with AMX or AVX512-BF16, would compute in 16 bits unasked.
                "INFERENCE_PRECISION_HINT": "f32",
                "NUM_STREAMS": 1,
            },
        )
        counts = (len(compiled.inputs), len(compiled.outputs))
        if counts != (len(artifact.info.inputs), len(artifact.info.outputs)):
            raise SessionError(
                f"want {len(artifact.info.inputs)} inputs and {len(artifact.info.outputs)} outputs, "
                f"got {counts[0]} and {counts[1]}"
            )
        return _Session(artifact.info, compiled)


@functools.cache
def _core() -> Any:
    """The process's only Core, which is never freed.

    Its CPU plugin gives the calling thread a stack for signals, and takes it back in the wrong order where
    there are several Cores: the next Ctrl-C would then end the process with a segmentation fault.
    """
    import openvino

    return openvino.Core()


# While operators are registered: which are there decides what a network is read as.
_READING = threading.RLock()


@functools.cache
def _register_python() -> None:
    for extension in openvino_operators.extensions():
        _core().add_extension(extension)


def _register(library: bytes) -> bytes:
    """Register the operators of a library in an opset of their own, and return how networks name that.

    Of several operators with one name OpenVINO takes the first, and a process may open bundles that hold
    different libraries.
    """
    return _register_file(as_file(OpenVino.library, library), hashlib.sha256(library).hexdigest())


@functools.cache
def _register_file(path: Path, digest: str) -> bytes:
    try:
        loaded = ctypes.CDLL(str(path))
    except OSError as error:
        built = host.release(str(error))
        if not built:
            raise SessionError(f"the library of operators does not load: {error}", where=str(path)) from None
        raise _mismatch(built) from None
    name = f"{opset.DOMAIN}-{digest[:16]}".encode()
    loaded.edgekit_name_opset(name)
    _core().add_extension(path)
    return b'version="%s"' % name


def _check_release(info: ArtifactInfo) -> None:
    built = info.built_with.get("openvino", "")
    if built != OpenVino.requirements[0].version():
        raise _mismatch(built)


def _mismatch(built: str) -> MismatchError:
    return MismatchError(
        f"the library of operators is built for OpenVINO {built}, "
        f"installed is {OpenVino.requirements[0].version()}",
        where=OpenVino.library,
        hint=f"pip install 'openvino=={built}', or compile the model again",
    )


def _library(target: Target) -> tuple[bytes, str]:
    """The library of operators for a device; where it cannot be built, nothing and why."""
    try:
        if target.arch != platform.machine():
            raise UnavailableError(
                f"a library of operators for {target.arch} is linked with OpenVINO for {target.arch}, "
                f"and here is that for {platform.machine()}",
                hint=f"compile on a machine of {target.arch}",
            )
        return build.library(host.adapter(), build.Platform.of(target)).read_bytes(), ""
    except UnavailableError as error:
        return b"", f"operators of edgekit run in Python, more slowly: {error.message} ({error.hint})"


def _may_need_operators(network: Any) -> bool:
    """Whether a network has operators of edgekit's, or a GridSample that is not known to be of images."""
    nodes = itertools.chain(network.graph.all_nodes(), *(f.all_nodes() for f in network.functions.values()))
    return any(
        node.domain == opset.DOMAIN or (node.op_type == "GridSample" and _rank(node.inputs[0]) != _IMAGE)
        for node in nodes
    )


def _round_once(network: Any) -> bool:
    """Take quantizations out of an onnx_ir model that round what is rounded already; whether there were any.

    The largest of some rounded numbers is one of them, and so is each number of a concatenation. OpenVINO
    would compute the second rounding, and for each image of a concatenation by itself. It wants it in front
    of a transposed convolution, which it otherwise computes more slowly than all that (2026.4, volumes).
    """
    found = False
    for node in network.graph:
        rounds = node.inputs[0].producer() if node.op_type == "DequantizeLinear" else None
        if rounds is None or rounds.op_type != "QuantizeLinear":
            continue
        maker = rounds.inputs[0].producer()
        if maker is None or maker.op_type not in _CHOOSING:
            continue
        sources = [value.producer() for value in maker.inputs]
        alike = [one for one in sources if one is not None and one.op_type == node.op_type]
        if len(alike) < len(sources) or any(_grid(one) != _grid(node) for one in (*alike, rounds)):
            continue
        result = node.outputs[0]
        readers = {reader.op_type for reader in result.consumers()}
        if readers == {"Conv"} and not result.is_graph_output():
            result.replace_all_uses_with(maker.outputs[0])
            found = True
    return found


def _grid(node: Any) -> list[Any]:
    """Scale and zero point of a quantization, as far as they are known; unknown ones equal none."""
    import onnx_ir as ir

    tensors = [value and ir.convenience.get_const_tensor(value) for value in node.inputs[1:]]
    return [object() if one is None else (one.dtype, one.numpy().tolist()) for one in tensors]


def _join_quantizations(network: Any) -> None:
    """Make one operator of each QuantizeLinear and DequantizeLinear; the network is changed.

    OpenVINO's low precision transformations give all images that a concatenation joins for a convolution
    one interval. Where an image is rounded to signed bytes by two operators, they note the interval of the
    bytes, [-128, 127], and later take it for that of the numbers: these are then rounded to integers, and
    nothing says so (found on 2026.4). As one operator, quantization has the interval of the numbers from the
    beginning. This is what OpenVINO's own converter does to every network; it also folds what is computed of
    constants, weights in bytes excepted.
    """
    from openvino._offline_transformations import apply_moc_transformations

    if any(node.get_type_name() == "FakeQuantize" for node in network.get_ops()):
        apply_moc_transformations(network, cf=True)


class _Session(NetworkSession):
    def __init__(self, info: ArtifactInfo, compiled: Any) -> None:
        import openvino

        super().__init__(info)
        self._tensor = openvino.Tensor
        self._request: Any = compiled.create_infer_request()
        # The names stand in the contract: those of the vendor's form change with its version.
        self._inputs = list(enumerate(spec.name for spec in info.inputs))
        self._outputs = list(enumerate(spec.name for spec in info.outputs))

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        request = self._request
        if request is None:
            raise self.closed()
        try:
            for index, name in self._inputs:
                array = feeds[name]
                # Read in place; a read-only array has to be copied, OpenVINO takes no other.
                tensor = self._tensor(array, shared_memory=array.flags.writeable)
                request.set_input_tensor(index, tensor)
            # `start_async` and `wait` skip the conversions of `infer`.
            request.start_async()
            request.wait()
            return {name: request.get_output_tensor(index).data.copy() for index, name in self._outputs}
        except Exception as error:
            raise self.failed(error) from error

    def close(self) -> None:
        self._request = None


def _rank(value: Any) -> int | None:
    return None if value is None or value.shape is None else len(value.shape)


def _holds_integers(image: Any) -> bool:
    return _rank(image) == _VOLUME and image.dtype is not None and not image.dtype.name.endswith(_FLOATING)


BACKEND = OpenVino()
