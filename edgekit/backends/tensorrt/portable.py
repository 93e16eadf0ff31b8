"""The portable form: one ONNX file that TensorRT's parser takes on the device, and what goes beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.backends.tensorrt import versions, weak
from edgekit.errors import UnsupportedError
from edgekit.graph.opset import DOMAIN, VERSION
from edgekit.graph.opset import register as register_operators
from edgekit.hosts import tensorrt_parser

if TYPE_CHECKING:
    import onnx_ir as ir

# How GridSample names its modes, and our operator.
_MODES = {"bilinear": "linear", "bicubic": "cubic"}
_VOLUME = 5
# Format of files of the ONNX releases, by their newest operator set.
_IR_VERSIONS = ((18, 8), (20, 9), (22, 10), (23, 11), (24, 12), (27, 13))


@dataclass(frozen=True)
class Portable:
    """A network as TensorRT's parser takes it.

    Attributes:
        model: The ONNX file.
        strongly_typed: Whether its types are to be kept.
        operators: The operators of edgekit's in it, which a library of plug-ins computes.
        precisions: What a weakly typed one may compute in beside float32.
        layers: Precision of layers of a weakly typed one, by name.
        calibration: Its calibration cache; empty where there is none.
    """

    model: bytes
    strongly_typed: bool
    operators: tuple[str, ...]
    precisions: frozenset[str] = frozenset()
    layers: dict[str, str] = field(default_factory=dict)
    calibration: bytes = b""


def write(
    model: ir.Model | Path, tensorrt: str, *, weakly: bool = False, calibrated: bool = True
) -> Portable:
    """Make the portable form.

    Args:
        model: The network after edgekit's passes, strongly typed: a file, or one that is not used any more.
        tensorrt: The oldest version that is to take it.
        weakly: Weakly typed also where the version has strongly typed networks, as accelerators want it.
        calibrated: Whether quantization of a weakly typed network is a calibration cache, or stays in it.

    Raises:
        UnsupportedError: The network's operator set is newer than the version's, or a calibration cache
            cannot say a node.
    """
    import onnx
    import onnx_ir as ir
    from onnx_ir.passes import common

    register_operators()
    if isinstance(model, Path):
        model = ir.load(model)
    abilities = versions.abilities(versions.parse(tensorrt))
    _check_operator_set(model, tensorrt)
    common.ShapeInferencePass()(model)
    _sample_volumes_by_plugin(model)
    common.NameFixPass()(model)
    strongly = abilities.strong_typing and not weakly
    said = weak.Said() if strongly else weak.weaken(model, calibrated=calibrated)
    proto = ir.serde.serialize_model(model)
    onnx.checker.check_model(proto)
    return Portable(
        model=proto.SerializeToString(deterministic=True),
        strongly_typed=strongly,
        operators=tuple(sorted({n.op_type for n in model.graph.all_nodes() if n.domain == DOMAIN})),
        precisions=frozenset(said.precisions),
        layers=said.layers,
        calibration=weak.cache(said.scales, tensorrt) if said.scales else b"",
    )


def _check_operator_set(model: ir.Model, tensorrt: str) -> None:
    """See that the parser takes the operator set, and name the format of files that goes with it."""
    newest = tensorrt_parser.operator_sets(tensorrt_parser.parse(tensorrt)).newest
    own = model.opset_imports.get("", newest)
    if own > newest:
        raise UnsupportedError(
            f"TensorRT {tensorrt} takes operator sets of ONNX up to {newest}, the network has {own}",
            hint=f"export the model with opset_version={newest}",
        )
    model.ir_version = min(model.ir_version or _format_of(newest), _format_of(newest))


def _format_of(operator_set: int) -> int:
    """The newest format of files of the ONNX release that brought an operator set."""
    return next(version for newest, version in _IR_VERSIONS if operator_set <= newest)


def _sample_volumes_by_plugin(model: ir.Model) -> None:
    """GridSample of a volume, which TensorRT has from 11.2 on, becomes our operator, which is a plug-in."""
    import onnx_ir as ir

    changed = False
    for node in model.graph.all_nodes():
        image = node.inputs[0] if node.inputs else None
        if node.op_type != "GridSample" or node.domain or image is None or image.shape is None:
            continue
        if len(image.shape) != _VOLUME:
            continue
        mode = node.attributes["mode"].as_string() if "mode" in node.attributes else "linear"
        node.op_type, node.domain, node.version = "GridSample3d", DOMAIN, VERSION
        node.attributes["mode"] = ir.AttrString("mode", _MODES.get(mode, mode))
        changed = True
    if changed:
        model.opset_imports[DOMAIN] = VERSION
