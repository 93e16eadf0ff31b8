"""What stands in front of a model: steps that the runtime does, and networks that are compiled with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgekit import runtime, samples, steps
from edgekit.errors import SpecError, UsageError, did_you_mean
from edgekit.graph.chain import chain
from edgekit.graph.graph import Graph
from edgekit.graph.load import load, run_torch
from edgekit.spec import LAYOUTS, Array, Dim, Step, TensorSpec, format_dims, parse_dims
from edgekit.steps import STEPS, text
from edgekit.zoo import MODELS, ZooModel

_ZOO = "zoo."


@dataclass(frozen=True)
class Front:
    """What a user wants done before a model.

    Attributes:
        steps: Steps of the runtime, in order.
        networks: Models of the zoo, in order: after all steps, and in front of the network that is compiled.
    """

    steps: tuple[Step, ...] = ()
    networks: tuple[Step, ...] = ()

    @classmethod
    def of(cls, wanted: Step | str | Sequence[Step | str]) -> Front:
        """Read what was asked for: steps, or texts like ``median image radius=2`` or ``zoo.denoise2d image``.

        Raises:
            UsageError: An unknown step or model, a step behind a network, a text that cannot be read.
            SpecError: A step with an option that it does not have, or with a value of another type.
        """
        asked = [wanted] if isinstance(wanted, (Step, str)) else wanted
        plain: list[Step] = []
        networks: list[Step] = []
        for item in asked:
            step = _parse(item) if isinstance(item, str) else _known(item)
            if step.op.startswith(_ZOO):
                networks.append(step)
            elif networks:
                raise UsageError(
                    f"{step.op} would run behind {networks[0].op}, which is compiled with the model: "
                    "want all steps before all networks",
                    where=_where(item),
                    hint=f"give {step.op} first",
                )
            else:
                plain.append(step)
        return cls(tuple(plain), tuple(networks))

    def __bool__(self) -> bool:
        return bool(self.steps or self.networks)

    def named(self, inputs: Sequence[str]) -> Front:
        """The same with the name of a model's only input where a text named none.

        Raises:
            UsageError: The model has several inputs.
        """

        def name(step: Step) -> Step:
            if step.inputs or step.outputs:
                return step
            if len(inputs) != 1:
                raise UsageError(
                    f"which input is it? want one of {', '.join(inputs)}",
                    where=f"step {step.op}",
                    hint=f"{step.op} {inputs[0]}",
                )
            return replace(step, inputs=(inputs[0],), outputs=(inputs[0],))

        return Front(tuple(map(name, self.steps)), tuple(map(name, self.networks)))

    def run(self, feeds: Mapping[str, Array], *, time_limit_s: float = 300.0) -> dict[str, Array]:
        """What the model itself gets of a caller's inputs; networks run in PyTorch.

        Args:
            feeds: A caller's inputs by name.
            time_limit_s: For running a network.

        Raises:
            EdgekitError: A step or network that does not fit the arrays.
        """
        front = self.named(list(feeds))
        given = {name: _describe(name, array) for name, array in feeds.items()}
        known = steps.infer(front.steps, given, in_place=True)
        tensors = runtime.run_steps(front.steps, samples.check_inputs(given.values(), feeds))
        for step in front.networks:
            name = _input(step, known)
            model = _fitting(step, known[name])
            (theirs,) = model.inputs
            golden = run_torch(
                model.factory,
                {theirs: tensors[name]},
                weights=model.weights,
                time_limit_s=time_limit_s,
            )
            (tensors[name],) = golden.outputs.values()
        return tensors

    def attach(
        self, graph: Graph, *, feeds: Mapping[str, Array] | None = None, time_limit_s: float = 300.0
    ) -> tuple[Graph, tuple[str, ...]]:
        """The graph with all this in front of it, and what a user wants to know of that.

        Args:
            graph: The model.
            feeds: A caller's inputs by name, to be refused before the work where they do not fit.
            time_limit_s: For exporting a network.

        Raises:
            UsageError: A text named no input, and the model has several.
            SpecError: Something that does not fit the graph.
            EdgekitError: A network that cannot be exported or compiled together with this one.
        """
        front = self.named([spec.name for spec in graph.inputs])
        graph = front._with_steps(graph)
        if feeds is not None:
            samples.check_inputs(graph.given, feeds)
        return front._with_networks(graph, time_limit_s)

    def _with_networks(self, graph: Graph, time_limit_s: float) -> tuple[Graph, tuple[str, ...]]:
        notes: list[str] = []
        contracts = {spec.name: spec for spec in graph.inputs}
        names = [_input(step, contracts) for step in self.networks]
        models = [_fitting(step, contracts[name]) for step, name in zip(self.networks, names, strict=True)]
        for step, name, model in reversed(list(zip(self.networks, names, models, strict=True))):
            (theirs,) = model.inputs
            loaded = load(
                model.factory,
                shapes={theirs: format_dims(contracts[name].dims)},
                weights=model.weights,
                time_limit_s=time_limit_s,
            )
            graph = chain(loaded.graph, graph, at=name, title=step.op)
            notes[:0] = [f"{step.op}: {note}" for note in loaded.notes]
        return graph, tuple(notes)

    def _with_steps(self, graph: Graph) -> Graph:
        """What a caller gives are the inputs that no step makes out of others.

        Their contracts are the network's: a step keeps the type and the lengths of the input whose place it
        takes.
        """
        contracts = {spec.name: spec for spec in graph.inputs}
        given = tuple(spec for spec in graph.inputs if not _is_made(spec.name, self.steps))
        made = steps.infer(self.steps, {spec.name: spec for spec in given}, in_place=True)
        for step in self.steps:
            for name in step.outputs:
                if name not in contracts:
                    raise SpecError(
                        f"a step before the network makes {name!r}, which is no input of it: want one of "
                        f"{', '.join(contracts)}",
                        where=str(step),
                        hint=f"name it {next(iter(contracts))!r}, whose place it then takes",
                    )
        for name, want in contracts.items():
            if (made[name].dtype, made[name].dims) != (want.dtype, want.dims):
                last = next(step for step in reversed(self.steps) if name in step.outputs)
                raise SpecError(f"the network wants {want}, the step makes {made[name]}", where=str(last))
        return replace(graph, before=self.steps, given=given)


def _describe(name: str, array: Array) -> TensorSpec:
    if not isinstance(array, np.ndarray):
        raise SpecError(
            f"want a NumPy array, got {type(array).__name__}",
            where=f"tensor {name!r}",
            hint="numpy.asarray(…)",
        )
    return TensorSpec(name, array.dtype.name, array.shape, LAYOUTS.get(array.ndim, ""))


def _parse(words: str) -> Step:
    try:
        op, inputs, options = text.split(words)
        if op not in STEPS:
            return _known(Step(op, inputs, inputs[:1], dict(options)))
        return text.parse(words)
    except UsageError as error:
        raise UsageError(error.message, where=_where(words), hint=error.hint) from None


def _known(step: Step) -> Step:
    """The step, if there is one of this name with these options."""
    if step.op in STEPS:
        STEPS[step.op].options(step)
    else:
        _model(step)
    return step


def _where(item: Step | str) -> str:
    return f"--before {item!r}" if isinstance(item, str) else str(item)


def _unknown(op: str, where: str) -> UsageError:
    known = [*STEPS, *(_ZOO + model.name for model in MODELS.values() if model.in_place)]
    near = did_you_mean(op, known)
    return UsageError(
        f"unknown step {op!r}: want one of {', '.join(known)}",
        where=where,
        hint=f"did you mean {near!r}?" if near else None,
    )


def _model(step: Step) -> ZooModel:
    """The model of the zoo, if it can stand in front of another one."""
    name = step.op.removeprefix(_ZOO)
    if not step.op.startswith(_ZOO) or name not in MODELS:
        raise _unknown(step.op, str(step))
    if step.options:
        raise UsageError(f"{step.op} has no option {next(iter(step.options))!r}: want none", where=str(step))
    if len(MODELS[name].inputs) != 1:
        raise UsageError(
            f"{step.op} reads {', '.join(MODELS[name].inputs)}: a network before another one wants one input",
            where=str(step),
        )
    if not MODELS[name].in_place:
        raise UsageError(
            f"{step.op} makes no image like the one it reads: a network before another one takes an input's "
            "place",
            where=str(step),
            hint="compile it by itself",
        )
    return MODELS[name]


def _input(step: Step, contracts: Mapping[str, TensorSpec]) -> str:
    """The input that a network stands in front of."""
    if len(step.inputs) != 1 or step.inputs != step.outputs:
        raise SpecError("a network reads one input of the model and takes its place", where=str(step))
    if step.inputs[0] not in contracts:
        near = did_you_mean(step.inputs[0], contracts)
        raise SpecError(
            f"{step.inputs[0]!r} is no input of the model: want one of {', '.join(contracts)}",
            where=str(step),
            hint=f"did you mean {near!r}?" if near else None,
        )
    return step.inputs[0]


def _fitting(step: Step, spec: TensorSpec) -> ZooModel:
    """The model, if it takes tensors like this: its axes, its fixed lengths, multiples of its steps.

    How many images a batch has is left to the user: the models of the zoo take each by itself.
    """
    model = _model(step)
    (wanted,) = (parse_dims(shape) for shape in model.inputs.values())
    layout = LAYOUTS[len(wanted)]
    if spec.dtype == "float32" and len(spec.dims) == len(wanted):
        near = (spec.dims[0], *map(_nearest, spec.dims[1:], wanted[1:]))
        if near == spec.dims:
            return model
        hint = f"--shape {spec.name}={format_dims(near)}"
    else:
        hint = f"a model that takes images {layout}"
    rules = (
        f"{letter} a multiple of {want.step}" if isinstance(want, Dim) else f"{letter} = {want}"
        for letter, want in zip(layout[1:], wanted[1:], strict=True)
    )
    raise SpecError(
        f"{step.op} wants float32 {'x'.join(layout)}, {', '.join(rules)}: got {spec}",
        where=str(step),
        hint=hint,
    )


def _nearest(length: int | Dim, wanted: int | Dim) -> int | Dim:
    """The lengths that a model takes next to these: multiples of its step, or its only one."""
    if isinstance(wanted, int):
        return wanted
    if isinstance(length, int):
        return _up(length, wanted.step)
    low = _up(length.min, wanted.step)
    return Dim(low, max(low, length.max), _up(length.step, wanted.step))


def _up(length: int, step: int) -> int:
    return -(-length // step) * step


def _is_made(name: str, front: Sequence[Step]) -> bool:
    """Whether a step makes the tensor before any reads it: then no caller gives it."""
    for step in front:
        if name in step.inputs:
            return False
        if name in step.outputs:
            return True
    return False
