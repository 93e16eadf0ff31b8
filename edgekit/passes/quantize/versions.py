"""The operator set that quantization is written in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekit.errors import PassError
from edgekit.graph.graph import own_tensors
from edgekit.graph.intake import first_line

if TYPE_CHECKING:
    import onnx_ir as ir

# The first version where DequantizeLinear takes a scale for each channel, and the format that knows it.
_OPSET = 13
_IR_VERSION = 7


def with_scales_per_channel(model: ir.Model) -> ir.Model:
    """The model, in a version of ONNX's operator set that has scales for each channel.

    Args:
        model: Not used any more by the caller.

    Raises:
        PassError: Its own version is older, and it cannot be converted.
    """
    import onnx_ir as ir

    domain = "" if "" in model.opset_imports else "ai.onnx"
    own = model.opset_imports.get(domain, _OPSET)
    if own < _OPSET:
        from onnx import version_converter

        try:
            proto = version_converter.convert_version(ir.serde.serialize_model(model), _OPSET)
            model = ir.serde.deserialize_model(proto)
        except Exception as error:  # noqa: BLE001 - RuntimeError, ConvertError and whatever its C++ throws
            raise PassError(
                f"opset {own} has no scales for each channel, and the network cannot be converted to "
                f"{_OPSET}: {first_line(error)}",
                where="quantize",
                hint=f"export the model with opset {_OPSET} or later",
            ) from None
        own_tensors(model)
    model.ir_version = max(model.ir_version or 0, _IR_VERSION)
    return model
