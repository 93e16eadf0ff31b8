"""From a torch module to ONNX, by one of torch's two exporters, with the module's own outputs as evidence.

Neither exporter takes every network: torch.export refuses control flow on data and is slow on large
transformers, tracing knows fewer operators and freezes what depends on values. :mod:`edgekit.graph.load`
asks one, then the other.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit import isolation, schema
from edgekit.errors import EdgekitError, ModelError, SpecError
from edgekit.graph import interface, opset
from edgekit.graph.intake import IntakeLimits
from edgekit.graph.load import Exported, examine
from edgekit.samples import generate_inputs
from edgekit.spec import LAYOUTS, Array, Dim, TensorSpec
from edgekit.torch import operators  # noqa: F401 - registers edgekit::warp and its siblings with torch
from edgekit.torch.source import call_factory, load_weights, read_pt2, reason

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
    specs = _input_specs(module, shapes, inputs, where)
    with _for_inference(module):
        flat = _Flat(module, [spec.name for spec in specs])
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
    specs = _input_specs(module, shapes or {}, samples or {}, where)
    inputs = {s.name: s.check(samples[s.name]) for s in specs} if samples else generate_inputs(specs)
    try:
        with _for_inference(module):
            flat = _Flat(module, [spec.name for spec in specs])
            outputs = _run(flat, inputs, where)
            with _quiet(), torch.no_grad():
                data = _EXPORTERS[exporter](flat, specs, list(outputs))
        found = _examine(data, specs, list(outputs), limits, where)
    except _ExportFailed as failure:
        return str(failure)
    return Exported(data, found, inputs, outputs)


def _input_specs(
    module: nn.Module, shapes: Mapping[str, str], samples: Mapping[str, Array], where: str
) -> tuple[TensorSpec, ...]:
    """Contracts of the inputs, in the order of ``forward``'s parameters."""
    parameters = inspect.signature(module.forward).parameters.values()
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    known = [p.name for p in named] or list(shapes)
    # An optional parameter is an input where the user gives it a shape.
    names = [p.name for p in named if p.default is p.empty or p.name in shapes] or known
    given = interface.read_shapes(shapes, names if "" in shapes else known)
    missing = [name for name in names if name not in given]
    if missing or not names:
        raise SpecError(
            f"a module does not say its inputs' shapes: none given for {', '.join(missing) or 'any'}",
            where=where,
            hint=" ".join(f"--shape {name}=1x1x96x96x96" for name in missing or ["name"]),
        )
    if samples and set(samples) != set(names):
        raise SpecError(
            f"want one sample for each input: {', '.join(names)}; got {', '.join(samples)}", where=where
        )
    return tuple(
        TensorSpec(
            name,
            samples[name].dtype.name if name in samples else "float32",
            given[name],
            LAYOUTS.get(len(given[name]), ""),
        )
        for name in names
    )


class _Flat(nn.Module):
    """The module with positional inputs and a flat tuple of outputs, whatever its ``forward`` looks like."""

    def __init__(self, module: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        parameters = inspect.signature(module.forward).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            self.keywords: tuple[str, ...] = ()
            return
        # By position as far as it goes: the module of a .pt2 file takes no keywords.
        order = [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY]
        leading = takewhile(lambda pair: pair[0] == pair[1], zip(names, order, strict=False))
        self.keywords = tuple(names[len(list(leading)) :])

    def call(self, *tensors: Tensor) -> Any:
        split = len(tensors) - len(self.keywords)
        return self.module(*tensors[:split], **dict(zip(self.keywords, tensors[split:], strict=True)))

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(_named_outputs(self.module, self.call(*tensors)).values())


def _named_outputs(module: nn.Module, result: Any) -> dict[str, Any]:
    """Outputs by name: keys of a dictionary, fields of a named tuple, else ``output`` or ``output_0`` ….

    A module may name the members of a plain tuple in an attribute ``output_names``.
    """
    if isinstance(result, Mapping):
        return {str(name): value for name, value in result.items()}
    if hasattr(result, "_fields"):
        return result._asdict()  # type: ignore[no-any-return]
    values = list(result) if isinstance(result, (tuple, list)) else [result]
    names = getattr(module, "output_names", None)
    if isinstance(names, (tuple, list)) and len(names) == len(values):
        return dict(zip(map(str, names), values, strict=True))
    if len(values) == 1:
        return {"output": values[0]}
    return {f"output_{index}": value for index, value in enumerate(values)}


def _run(flat: _Flat, inputs: Mapping[str, Array], where: str) -> dict[str, Array]:
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
    outputs = _named_outputs(flat.module, result)
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


def _export_dynamo(flat: _Flat, specs: tuple[TensorSpec, ...], outputs: Sequence[str]) -> bytes:
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
                custom_translation_table=_translations(),
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


def _translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Each torch operator of ours as one node of domain ``edgekit``."""
    from onnxscript import values

    opset.register()
    own = values.Opset(opset.DOMAIN, opset.VERSION)

    def warp(image: Any, flow_vox: Any, order: int, boundary: str) -> Any:
        return own.Warp(image, flow_vox, order=order, boundary=boundary)

    def integrate_velocity(velocity_vox: Any, steps: int, boundary: str) -> Any:
        return own.IntegrateVelocity(velocity_vox, steps=steps, boundary=boundary)

    return {
        torch.ops.edgekit.warp.default: warp,
        torch.ops.edgekit.integrate_velocity.default: integrate_velocity,
    }


def _name_nodes(model: Any) -> None:
    """Name nodes after the module they come from, so that errors name the user's layer."""
    for node in model.graph.all_nodes():
        scopes = node.metadata_props.get("pkg.torch.onnx.name_scopes", "")
        parts = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
        layer = parts[-2].removeprefix("module").removeprefix(".") if len(parts) > 1 else ""
        node.name = f"{layer}/{node.op_type}" if layer else node.op_type


def _export_legacy(flat: _Flat, specs: tuple[TensorSpec, ...], outputs: Sequence[str]) -> bytes:
    """Tracing: what ran once is what is exported."""
    opset.register()
    names = {symbol: f"d{index}" for index, symbol in enumerate(interface.symbols(specs))}
    axes = {
        spec.name: {axis: names[axis, d] for axis, d in enumerate(spec.dims) if isinstance(d, Dim)}
        for spec in specs
        if not spec.is_static
    }
    file = io.BytesIO()
    with _legacy_symbols():
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


@contextlib.contextmanager
def _legacy_symbols() -> Iterator[None]:
    """Each torch operator of ours as one node of domain ``edgekit``, while tracing."""
    from torch.onnx.symbolic_helper import parse_args

    symbolics: Any = torch.onnx

    @parse_args("v", "v", "i", "s")
    def warp(g: Any, image: Any, flow_vox: Any, order: int, boundary: str) -> Any:
        node = g.op("edgekit::Warp", image, flow_vox, order_i=order, boundary_s=boundary)
        return node.setType(image.type())

    @parse_args("v", "i", "s")
    def integrate_velocity(g: Any, velocity_vox: Any, steps: int, boundary: str) -> Any:
        node = g.op("edgekit::IntegrateVelocity", velocity_vox, steps_i=steps, boundary_s=boundary)
        return node.setType(velocity_vox.type())

    symbols = {"edgekit::warp": warp, "edgekit::integrate_velocity": integrate_velocity}
    for name, symbol in symbols.items():
        symbolics.register_custom_op_symbolic(name, symbol, OPSET)
    try:
        yield
    finally:
        for name in symbols:
            symbolics.unregister_custom_op_symbolic(name, OPSET)


_EXPORTERS: dict[str, Callable[[_Flat, tuple[TensorSpec, ...], Sequence[str]], bytes]] = {
    "dynamo": _export_dynamo,
    "legacy": _export_legacy,
}


@contextlib.contextmanager
def _for_inference(module: nn.Module) -> Iterator[None]:
    """Without dropout and with the recorded statistics; the module is given back as it was."""
    training = {part: part.training for part in module.modules()}
    try:
        module.eval()
    except NotImplementedError:  # the module of a .pt2 file, whose mode was fixed when it was made
        yield
        return
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode


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
