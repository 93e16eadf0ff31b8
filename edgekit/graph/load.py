"""The way in: a model from a file or from PyTorch becomes a :class:`~edgekit.graph.graph.Graph`.

.onnx             looked at here, checked in a child process, then read here: the very bytes that were checked
module:function   called and exported in a child process: by torch.export first, else by tracing
.pt2              likewise, with ``trust`` only: reading one can run code
nn.Module         exported in this process, since a module cannot be handed to another one safely
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit import isolation, schema
from edgekit.errors import GraphError, LimitError, ModelError, UsageError
from edgekit.graph import external, functions, intake, interface, wire
from edgekit.graph import opset as own_opset
from edgekit.graph import weights as weights_file
from edgekit.graph.graph import Graph, own_tensors
from edgekit.graph.intake import IntakeLimits
from edgekit.graph.interface import Interface
from edgekit.registry import resolve
from edgekit.spec import Array

if TYPE_CHECKING:
    import onnx
    import torch

# Of the time limit, what torch.export may use before tracing gets its turn.
_FIRST_SHARE = 0.6
_CHECK_TIME_S = 60.0
_CHECK_MEMORY_BYTES = 384 << 20


@dataclass(frozen=True)
class Golden:
    """What the source framework itself makes of given inputs.

    Attributes:
        inputs: One array for each input, by name.
        outputs: One array for each output, by name.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Array]


@dataclass(frozen=True)
class Loaded:
    """A model that was taken in.

    Attributes:
        graph: The model.
        golden: Outputs of the source framework; ``None`` for ONNX files, which have none.
        notes: What a user wants to know of the way in.
    """

    graph: Graph
    golden: Golden | None
    notes: tuple[str, ...]


def load(
    source: str | os.PathLike[str] | torch.nn.Module,
    *,
    shapes: Mapping[str, str] | None = None,
    weights: str | os.PathLike[str] | None = None,
    trust: bool = False,
    limits: IntakeLimits = IntakeLimits(),
    time_limit_s: float = 300.0,
    samples: Mapping[str, Array] | None = None,
) -> Loaded:
    """Take a model in.

    Args:
        source: Path of an ``.onnx`` or ``.pt2`` file, ``"package.module:function"`` that returns a
            ``torch.nn.Module``, or such a module.
        shapes: Shape of each input, such as ``{"ct": "1x1x[32:128:16]x96"}``; a model with one input may have
            it under the name ``""``. Inputs with one range on one axis get equal lengths.
        weights: ``.safetensors``, ``.pt`` or ``.pth`` file with the state of a factory's module.
        trust: Allow ``.pt2``, which can run code when it is read.
        limits: How large the model may be.
        time_limit_s: For exporting from PyTorch. A module that is handed over is exported in this process and
            has no limit.
        samples: Inputs for the golden outputs; seeded generated ones of the smallest shapes otherwise.

    Raises:
        GraphError: The file or graph is malformed, unsafe or over a limit.
        UnsupportedError: Operators, versions or types that are not known.
        ModelError: The module, its weights, or both exporters failed.
        SpecError: A shape is missing or contradicts the model; a sample does not fit.
        UsageError: Arguments that do not go together.
        LimitError: Exporting took too long.
    """
    if not isinstance(source, (str, os.PathLike)):
        if weights is not None:
            raise UsageError(
                "weights go with a factory; a module has its own", hint="module.load_state_dict(…) before"
            )
        return _load_module(source, shapes, limits, samples)
    text = os.fspath(source)
    if is_onnx(source):
        if weights is not None:
            raise UsageError("an .onnx file has its own weights", where=f"--weights {os.fspath(weights)}")
        return _load_onnx(Path(text), shapes, limits)
    file = _check_torch(text, weights, trust)
    return _load_torch(text, file, shapes, limits, time_limit_s, samples)


def is_onnx(source: str | os.PathLike[str] | torch.nn.Module) -> bool:
    """Whether the model comes as ONNX, so that no framework of its own can be asked for golden outputs."""
    return isinstance(source, (str, os.PathLike)) and os.fspath(source).endswith(".onnx")


def run_torch(
    source: str | os.PathLike[str] | torch.nn.Module,
    inputs: Mapping[str, Array],
    *,
    weights: str | os.PathLike[str] | None = None,
    trust: bool = False,
    time_limit_s: float = 300.0,
) -> Golden:
    """What PyTorch makes of given inputs; the model is run and not exported.

    Args:
        source: As for :func:`load`, ``.onnx`` files excepted.
        inputs: One array for each input, by name.
        weights: As for :func:`load`.
        trust: Likewise.
        time_limit_s: For the child; a module that is handed over runs in this process and has no limit.

    Raises:
        ModelError, SpecError, UsageError, LimitError: As :func:`load`.
    """
    if not isinstance(source, (str, os.PathLike)):
        return Golden(dict(inputs), resolve("edgekit.torch.export:run_module")(source, inputs))
    text = os.fspath(source)
    file = _check_torch(text, weights, trust)
    outcome = isolation.run(
        "edgekit.torch.export:run_job",
        {"source": text, "weights": str(file.absolute()) if file is not None else None},
        arrays=inputs,
        limits=isolation.Limits(time_s=time_limit_s),
        what=f"running {text}",
        error=ModelError,
    )
    return Golden(dict(inputs), outcome.arrays)


def _check_torch(text: str, weights: str | os.PathLike[str] | None, trust: bool) -> Path | None:
    """Refuse what is neither a factory nor a trusted ``.pt2`` file; returns the checked file of weights."""
    if text.endswith(".pt2"):
        if weights is not None:
            raise UsageError("a .pt2 file has its own weights", where=f"--weights {os.fspath(weights)}")
        if not trust:
            raise ModelError(
                "a .pt2 file can run code when it is read",
                where=text,
                hint="--trust, if you know who made it",
            )
        return None
    module, colon, function = text.partition(":")
    if not (colon and function.isidentifier() and all(p.isidentifier() for p in module.split("."))):
        raise UsageError(
            f"cannot tell what kind of model this is: {text!r}",
            where="model",
            hint="want file.onnx, file.pt2 (with --trust) or package.module:function",
        )
    file = Path(weights) if weights is not None else None
    if file is not None:
        weights_file.check(file)
    return file


def _load_onnx(path: Path, shapes: Mapping[str, str] | None, limits: IntakeLimits) -> Loaded:
    data, payload = _read_file(path, limits)
    try:
        answer = isolation.run(
            "edgekit.graph.load:_check_job",
            {"path": str(path.absolute()), "shapes": dict(shapes or {}), "limits": schema.encode(limits)},
            limits=isolation.Limits(_CHECK_TIME_S, _CHECK_MEMORY_BYTES + 3 * payload),
            what=f"checking {path.name}",
            error=GraphError,
        ).value
    except LimitError as error:
        raise GraphError(
            f"the model takes too much to check: {error.message.splitlines()[0]}", where=path.name
        ) from None
    if answer["digest"] != hashlib.sha256(data).hexdigest():
        raise GraphError("the file changed while it was read", where=path.name)
    model = functions.inline(_parse(data, path.name), limits, path.name)
    sized = ((t, intake.tensor_bytes(t)) for t in intake.all_tensors(model.graph))
    external.embed(sized, path.absolute().parent, where=path.name)
    found = schema.decode(Interface, answer["interface"], error=GraphError, where=path.name)
    return Loaded(build_graph(model, found, f"loaded {path.name}"), None, ())


def _read_file(path: Path, limits: IntakeLimits) -> tuple[bytes, int]:
    """The bytes of a regular file whose outline is a model's, and how many of them are tensors' numbers."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise GraphError(f"cannot read the model: {error.strerror}", where=str(path)) from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise GraphError("the model is no regular file", where=str(path))
        if status.st_size > limits.file_bytes:
            raise GraphError(
                f"too large a file: want at most {limits.file_bytes} bytes, got {status.st_size}",
                where=path.name,
            )
        payload = wire.check_outline(
            descriptor,
            status.st_size,
            nodes=limits.nodes,
            structure_bytes=limits.structure_bytes,
            where=path.name,
        )
        return file.read(status.st_size), payload


def _check_job(request: isolation.Request) -> tuple[Any, dict[str, Array]]:
    """In the child: every check of an ONNX file."""
    limits = schema.decode(IntakeLimits, request.arguments["limits"], error=GraphError, where="limits")
    digest, found = check_file(Path(request.arguments["path"]), request.arguments["shapes"], limits)
    return {"digest": digest, "interface": schema.encode(found)}, {}


def check_file(
    path: Path, shapes: Mapping[str, str] | None = None, limits: IntakeLimits = IntakeLimits()
) -> tuple[str, Interface]:
    """Check an ONNX file completely, in this process; :func:`load` does it in a child.

    Returns:
        SHA-256 of the file, and the contracts of its inputs and outputs.

    Raises:
        EdgekitError: As :func:`load` says for ``.onnx`` files.
    """
    data, _ = _read_file(path, limits)
    found = examine(_parse(data, path.name), path.parent, shapes, limits, path.name)
    return hashlib.sha256(data).hexdigest(), found


def _parse(data: bytes, where: str) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
        return model
    except DecodeError:
        raise GraphError(
            "not an ONNX model, or a damaged or too deeply nested one: protobuf cannot read it", where=where
        ) from None


def examine(
    model: onnx.ModelProto,
    folder: Path,
    shapes: Mapping[str, str] | None,
    limits: IntakeLimits,
    where: str,
) -> Interface:
    """Check a parsed model completely and derive its contracts. The model is used up: large weights leave it.

    Raises:
        EdgekitError: As :func:`load` says.
    """
    own_opset.register()
    model = functions.inline(model, limits, where)
    intake.check(model, folder, limits, where)
    names = interface.input_names(model.graph)
    intake.drop_large_weights(model, folder, where)
    intake.check_with_onnx(model, where)
    return interface.derive(model, names, shapes, limits, where)


def build_graph(model: onnx.ModelProto, found: Interface, origin: str) -> Graph:
    """A graph from a checked model whose weights are all inside; ``origin`` begins its history."""
    import onnx_ir as ir
    from onnx_ir.passes import common

    interface.apply(model, found)
    try:
        network = ir.serde.deserialize_model(model)
    except ir.serde.SerdeError as error:
        raise GraphError(f"the model cannot be taken in: {intake.first_line(error)}", where=origin) from None
    # Paths, stack traces and dates of the export say nothing about the network and would be in its digest.
    common.ClearMetadataAndDocStringPass()(network)
    network.metadata_props.clear()
    network.producer_name = network.producer_version = None
    common.NameFixPass()(network)
    own_tensors(network)
    return Graph(network, found.inputs, found.outputs, history=(origin,))


def _load_torch(
    source: str,
    file: Path | None,
    shapes: Mapping[str, str] | None,
    limits: IntakeLimits,
    time_limit_s: float,
    samples: Mapping[str, Array] | None,
) -> Loaded:
    """Export in a child: torch.export first, tracing where that fails or takes too long."""
    deadline = time.monotonic() + time_limit_s

    def export(exporter: str, share: float) -> Exported | str:
        try:
            outcome = isolation.run(
                "edgekit.torch.export:export_job",
                {
                    "source": source,
                    "weights": str(file.absolute()) if file is not None else None,
                    "shapes": dict(shapes or {}),
                    "exporter": exporter,
                    "limits": schema.encode(limits),
                },
                arrays=samples,
                limits=isolation.Limits(time_s=max(1.0, share * (deadline - time.monotonic()))),
                what=f"exporting {source} ({_TITLES[exporter]})",
                error=_Crash,
            )
        except (LimitError, _Crash) as error:
            if isinstance(error, LimitError) and exporter == _LAST:
                raise
            return error.message.splitlines()[0]
        return _from_outcome(outcome, source)

    origin = Path(source).name if source.endswith(".pt2") else source
    return _export(export, origin + (f" with weights {file.name}" if file else ""))


def _load_module(
    module: torch.nn.Module,
    shapes: Mapping[str, str] | None,
    limits: IntakeLimits,
    samples: Mapping[str, Array] | None,
) -> Loaded:
    # Resolved by name: this package lies below the one that may import torch.
    export_module = resolve("edgekit.torch.export:export_module")
    return _export(
        lambda exporter, share: export_module(module, shapes, limits, samples, exporter),
        type(module).__qualname__,
    )


@dataclass(frozen=True)
class Exported:
    """What an exporter made of a module.

    Attributes:
        data: The ONNX file.
        interface: Contracts of its inputs and outputs.
        inputs: Inputs that the module was run on.
        outputs: What the module itself made of them.
        notes: What a user wants to know.
    """

    data: bytes
    interface: Interface
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    notes: tuple[str, ...] = ()


class _Crash(ModelError):
    """The child that exported ended without an answer."""


_TITLES = {"dynamo": "torch.export", "legacy": "tracing"}
_LAST = "legacy"


def _export(export: Callable[[str, float], Exported | str], origin: str) -> Loaded:
    """Ask one exporter, then the other; say which was used and why the first was not."""
    reasons: list[str] = []
    for exporter, share in (("dynamo", _FIRST_SHARE), (_LAST, 1.0)):
        exported = export(exporter, share)
        if isinstance(exported, str):
            reasons.append(f"{_TITLES[exporter]} failed: {exported}")
            continue
        how = f"exported from PyTorch by {_TITLES[exporter]}"
        model = _parse(exported.data, origin)
        graph = build_graph(model, exported.interface, f"{origin}, {how}")
        return Loaded(
            graph, Golden(exported.inputs, exported.outputs), ("; ".join([how, *reasons]), *exported.notes)
        )
    raise ModelError(
        "the module cannot be exported to ONNX:\n" + "\n".join(f"  {reason}" for reason in reasons),
        where=origin,
        hint="replace what the exporters name, or export it yourself and give the .onnx file",
    )


def _from_outcome(outcome: isolation.Outcome, source: str) -> Exported | str:
    if "failed" in outcome.value:
        return str(outcome.value["failed"])
    arrays: dict[str, dict[str, Array]] = {"in": {}, "out": {}}
    for key, array in outcome.arrays.items():
        side, _, name = key.partition(":")
        arrays[side][name] = array
    return Exported(
        outcome.files["model.onnx"],
        schema.decode(Interface, outcome.value["interface"], error=ModelError, where=source),
        arrays["in"],
        arrays["out"],
        tuple(outcome.value["notes"]),
    )
