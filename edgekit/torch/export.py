"""From a torch module to ONNX, by one of torch's two exporters, with the module's own outputs as evidence.

Neither exporter takes every network: torch.export refuses control flow on data and is slow on large
transformers, tracing knows fewer operators and freezes what depends on values. :mod:`edgekit.graph.load`
asks one, then the other.
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit import isolation, schema
from edgekit.errors import EdgekitError, ModelError
from edgekit.graph import interface, opset
from edgekit.graph.intake import IntakeLimits
from edgekit.graph.load import Exported, examine
from edgekit.samples import generate_inputs
from edgekit.spec import Array, Dim, TensorSpec
from edgekit.torch.calls import Flat, for_inference, input_specs, named_outputs
from edgekit.torch.source import call_factory, load_weights, read_pt2, reason
from edgekit.torch.translations import legacy_onnx_symbols, onnx_translations

OPSET = 20


class _ExportFailed(Exception):
    """The exporter could not; the other one may."""


def export_job(request: isolation.Request) -> tuple[Any, dict[str, Array]]:
    """In the child: make the module, export it, run it."""
    arguments = request.arguments
    module, shapes, notes = _make(arguments["source"], arguments["weights"], arguments["shapes"])
    limits = schema.decode(IntakeLimits, arguments["limits"], error=ModelError, where="limits")
    exported = export_module(module, shapes, limits, request.arrays, arguments["exporter"])
    if isinstance(exported, str):
        return {"failed": exported}, {}
    (request.out / "model.onnx").write_bytes(exported.data)
    value = {"interface": schema.encode(exported.interface), "notes": [*notes, *exported.notes]}
    arrays = {f"in:{name}": array for name, array in exported.inputs.items()}
    return value, arrays | {f"out:{name}": array for name, array in exported.outputs.items()}


def run_job(request: isolation.Request) -> tuple[None, dict[str, Array]]:
    """In the child: make the module and run it on the given arrays."""
    module, _, _ = _make(request.arguments["source"], request.arguments["weights"], {})
    return None, run_module(module, request.arrays)


def run_module(module: nn.Module, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """What a module makes of inputs by name.

    Raises:
        ModelError: The module itself fails, or gives something else than tensors.
        SpecError: An input is missing, or is none.
    """
    where = type(module).__qualname__
    shapes = {name: "x".join(map(str, array.shape)) for name, array in inputs.items()}
    specs = input_specs(module, shapes, inputs, where)
    with for_inference(module):
        flat = Flat(module, [spec.name for spec in specs])
        return _run(flat, {spec.name: spec.check(inputs[spec.name]) for spec in specs}, where)


def _make(
    source: str, weights: str | None, shapes: Mapping[str, str]
) -> tuple[nn.Module, Mapping[str, str], list[str]]:
    """The module, the shapes with those that its file tells, and what a user wants to know."""
    # A user's module lies where the command was typed.
    sys.path.insert(0, str(Path.cwd()))
    if source.endswith(".pt2"):
        return *read_pt2(source, shapes), []
    module = call_factory(source)
    return module, shapes, load_weights(module, Path(weights)) if weights is not None else []


def export_module(
    module: nn.Module,
    shapes: Mapping[str, str] | None,
    limits: IntakeLimits,
    samples: Mapping[str, Array] | None,
    exporter: str,
) -> Exported | str:
    """Export a module and run it.

    Args:
        module: Takes tensors, gives tensors: one, a tuple, a named tuple or a dictionary.
        shapes: Shape of each input, by the name of ``forward``'s parameter.
        limits: How large the model may be.
        samples: Inputs to run it on, whose types are the inputs' types; generated float32 ones otherwise.
        exporter: ``"dynamo"`` or ``"legacy"``.

    Returns:
        What came out, or why this exporter failed.

    Raises:
        ModelError: The module itself fails, or gives something else than tensors.
        SpecError: A shape is missing, or a sample does not fit.
    """
    where = type(module).__qualname__
    specs = input_specs(module, shapes or {}, samples or {}, where)
    inputs = {s.name: s.check(samples[s.name]) for s in specs} if samples else generate_inputs(specs)
    try:
        with for_inference(module):
            flat = Flat(module, [spec.name for spec in specs])
            outputs = _run(flat, inputs, where)
            with _quiet(), torch.no_grad():
                data = _EXPORTERS[exporter](flat, specs, list(outputs))
        found = _examine(data, specs, list(outputs), limits, where)
    except _ExportFailed as failure:
        return str(failure)
    return Exported(data, found, inputs, outputs)


def _run(flat: Flat, inputs: Mapping[str, Array], where: str) -> dict[str, Array]:
    """What the module itself makes of the inputs."""
    tensors = [torch.from_numpy(array) for array in inputs.values()]
    try:
        with torch.no_grad():
            result = flat.call(*tensors)
    except Exception as error:
        shapes = ", ".join(f"{name}: {'x'.join(map(str, a.shape))}" for name, a in inputs.items())
        raise ModelError(
            f"the module fails on inputs of these shapes ({shapes}): {reason(error)}",
            where=where,
            hint="check --shape: most networks want multiples of 8, 16 or 32",
        ) from error
    outputs = named_outputs(flat.module, result)
    wrong = [
        f"{name}: {type(value).__name__}" for name, value in outputs.items() if not isinstance(value, Tensor)
    ]
    if wrong or not outputs:
        raise ModelError(
            f"the module wants to give tensors, got {', '.join(wrong) or 'nothing'}",
            where=where,
            hint="wrap it in a module whose forward returns a tensor or a tuple of tensors",
        )
    return {name: np.ascontiguousarray(value.detach().cpu().numpy()) for name, value in outputs.items()}


def _examine(
    data: bytes, specs: tuple[TensorSpec, ...], outputs: Sequence[str], limits: IntakeLimits, where: str
) -> interface.Interface:
    """The exported model's contracts, where they are what the module's were."""
    import onnx

    model = onnx.ModelProto.FromString(data)
    names = {value.name for value in model.graph.input}
    lost = [spec.name for spec in specs if spec.name not in names]
    extra = sorted(names - {spec.name for spec in specs} - {t.name for t in model.graph.initializer})
    if lost or extra or [value.name for value in model.graph.output] != list(outputs):
        changes = [f"lost the input {name}" for name in lost] + [f"made an input of {name}" for name in extra]
        raise _ExportFailed("; ".join(changes) or "changed the outputs")
    shapes = {spec.name: "x".join(map(str, spec.dims)) for spec in specs}
    try:
        found = examine(model, Path(), shapes, limits, where)
    except EdgekitError as error:
        raise _ExportFailed(f"the exported graph is refused: {error.message} ({error.where})") from error
    order = {spec.name: spec for spec in found.inputs}
    return interface.Interface(tuple(order[spec.name] for spec in specs), found.outputs)


def _example(specs: tuple[TensorSpec, ...]) -> tuple[Tensor, ...]:
    """Tensors of a middle size: exporters take a length of one for fixed."""
    arrays = generate_inputs(specs, shapes={spec.name: tuple(map(_middle, spec.dims)) for spec in specs})
    return tuple(torch.from_numpy(array) for array in arrays.values())


def _middle(length: int | Dim) -> int:
    if isinstance(length, int):
        return length
    return length.min + (length.largest - length.min) // length.step // 2 * length.step


def _export_dynamo(flat: Flat, specs: tuple[TensorSpec, ...], outputs: Sequence[str]) -> bytes:
    """torch.export, then ONNX. Lengths that vary are symbols with their step; failing that, without it."""
    varies = any(not spec.is_static for spec in specs)
    attempts = [_derived_dims, _free_dims] if varies else [None]
    failure: Exception | None = None
    for make in attempts:
        try:
            program = torch.onnx.export(
                flat,
                _example(specs),
                dynamo=True,
                opset_version=OPSET,
                dynamic_shapes=(make(specs),) if make else None,
                input_names=[spec.name for spec in specs],
                output_names=list(outputs),
                custom_translation_table=onnx_translations(),
                external_data=False,
                verbose=False,
            )
            if program is None:
                raise _ExportFailed("torch.export gave nothing")
            _name_nodes(program.model)
            return program.model_proto.SerializeToString()  # type: ignore[no-any-return]
        except Exception as error:  # noqa: BLE001 - any exception of the exporter means that it failed
            failure = failure or error
    assert failure is not None
    raise _ExportFailed(reason(failure)) from failure


def _derived_dims(specs: tuple[TensorSpec, ...]) -> tuple[dict[int, Any], ...]:
    """``min + step * k`` as ``step * _d + rest``, one symbol for each axis and range."""
    made: dict[tuple[int, Dim], Any] = {}
    for index, (axis, length) in enumerate(interface.symbols(specs)):
        low, rest = divmod(length.min, length.step)
        base = torch.export.Dim(f"d{index}", min=low, max=(length.largest - rest) // length.step)
        symbol = base if length.step == 1 else length.step * base
        made[axis, length] = symbol + rest if rest else symbol
    return tuple(
        {axis: made[axis, d] for axis, d in enumerate(spec.dims) if isinstance(d, Dim)} for spec in specs
    )


def _free_dims(specs: tuple[TensorSpec, ...]) -> tuple[dict[int, Any], ...]:
    dynamic = torch.export.Dim.DYNAMIC
    return tuple({axis: dynamic for axis, d in enumerate(spec.dims) if isinstance(d, Dim)} for spec in specs)


def _name_nodes(model: Any) -> None:
    """Name nodes after the module they come from, so that errors name the user's layer."""
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
        parts = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
        layer = parts[-2].removeprefix("module").removeprefix(".") if len(parts) > 1 else ""
        node.name = f"{layer}/{node.op_type}" if layer else node.op_type


def _export_legacy(flat: Flat, specs: tuple[TensorSpec, ...], outputs: Sequence[str]) -> bytes:
    """Tracing: what ran once is what is exported."""
    names = {symbol: f"d{index}" for index, symbol in enumerate(interface.symbols(specs))}
    axes = {
        spec.name: {axis: names[axis, d] for axis, d in enumerate(spec.dims) if isinstance(d, Dim)}
        for spec in specs
        if not spec.is_static
    }
    file = io.BytesIO()
    with legacy_onnx_symbols(OPSET):
        try:
            torch.onnx.export(
                flat,
                _example(specs),
                file,  # type: ignore[arg-type]
                dynamo=False,
                opset_version=OPSET,
                dynamic_axes=axes,
                input_names=[spec.name for spec in specs],
                output_names=list(outputs),
                custom_opsets={opset.DOMAIN: opset.VERSION},
            )
        except Exception as error:
            raise _ExportFailed(reason(error)) from error
    return file.getvalue()


_EXPORTERS: dict[str, Callable[[Flat, tuple[TensorSpec, ...], Sequence[str]], bytes]] = {
    "dynamo": _export_dynamo,
    "legacy": _export_legacy,
}


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' warnings and logs: what matters of them is in the answer."""
    import logging
    import warnings

    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
