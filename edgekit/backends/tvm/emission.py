"""From a plan back to Relax: kernels, calls of them, and copies where a layout changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tvm import relax

from edgekit.backends.tvm import graph, patterns, planner, quantization
from edgekit.backends.tvm.elementwise import Output
from edgekit.backends.tvm.families import CHAIN, Family
from edgekit.backends.tvm.graph import Network, Value
from edgekit.backends.tvm.planner import Group, Plan
from edgekit.backends.tvm.processor import Processor
from edgekit.backends.tvm.tensor import PLAIN, Layout, Tensor

# A function whose loops stand as they will run.
SCHEDULED = "edgekit.scheduled"
_OPAQUE = 8  # no other function may be fused with it (relax.op_pattern)


def planned(module: Any, processor: Processor) -> Any:
    """The module with every operation that has a family turned into calls of kernels.

    Args:
        module: As the importer gives it: one function, ``main``.
        processor: What it is to run on.
    """
    module = relax.transform.DeadCodeElimination(["main"])(module)
    function = module["main"]
    network = graph.read(function)
    if network is None:
        return module
    patterns.recognize(network)
    quantization.recognize(network, processor)
    return _Emission(module, network, planner.plan(network, processor), processor).module()


class _Emission:
    """One function being written."""

    def __init__(self, module: Any, network: Network, plan: Plan, processor: Processor) -> None:
        self._module, self._network, self._plan, self._processor = module, network, plan, processor
        self._builder = relax.BlockBuilder(module)
        # Relax's variables of every value, in each layout that it has.
        self._forms: dict[int, dict[Layout, Any]] = {}
        self._functions: dict[Any, Any] = {}

    def module(self) -> Any:
        """The new module."""
        function = self._module["main"]
        for value in self._network.parameters:
            self._forms[id(value)] = {PLAIN: value.variable}
        builder = self._builder
        with builder.function("planned", list(function.params), attrs=dict(function.attrs or {})):
            with builder.dataflow():
                for group in self._plan.groups:
                    self._emit(group)
                result = builder.emit_output(self._renamed(self._network.result))
            builder.emit_func_output(result)
        module = builder.get()
        main, written = module.get_global_var("main"), module["planned"]
        module.update_func(main, written.with_attr("global_symbol", "main"))
        del module["planned"]
        return module

    def _emit(self, group: Group) -> None:
        if group.family is None:
            assert group.anchor is not None  # a chain always has a family
            call = group.anchor.call
            if isinstance(call, relax.MatchCast):
                result = self._builder.match_cast(self._renamed(call.value), call.ty)
            else:
                result = self._builder.emit(self._renamed(call))
            self._forms[id(group.output)] = {PLAIN: result}
            return
        tensor = self._tensor(group.output, self._plan.layout(group.output))
        sources = [self._source(group.family, group, place, tensor) for place in range(len(group.source))]
        extras = [self._extra(value, tensor) for value in group.extras()]
        output = Output(tensor, group.chain(), tuple(t for t, _ in extras))
        inputs = [t for t, _ in sources]
        arrays = []
        if group.anchor is not None:
            arrays = group.family.constants(group.problem, group.anchor, inputs, output, self._processor)
        arguments = [v for _, v in sources] + [relax.const(a) for a in arrays] + [v for _, v in extras]
        name = group.anchor.operator.rsplit(".", 1)[-1] if group.anchor else "chain"
        result = self._call(name, group.family, group.problem, inputs, output, arguments)
        self._forms.setdefault(id(group.output), {})[tensor.layout] = result

    def _call(
        self,
        name: str,
        family: Family,
        problem: Any,
        inputs: list[Tensor],
        output: Output,
        arguments: list[Any],
    ) -> Any:
        """Call a kernel; equal ones are one function."""
        key = (type(family), problem, tuple(inputs), output)
        if key not in self._functions:
            kernel = family.kernel(name, problem, inputs, output, self._processor)
            # Without a symbol of its own the module gives it one.
            kernel = kernel.without_attr("global_symbol").with_attrs({SCHEDULED: True, "op_pattern": _OPAQUE})
            self._functions[key] = self._builder.add_func(kernel, name)
        shape = relax.TensorType(output.tensor.memory, output.tensor.dtype)
        return self._builder.emit(relax.call_tir(self._functions[key], arguments, shape))

    def _source(self, family: Family, group: Group, place: int, result: Tensor) -> tuple[Tensor, Any]:
        """What a kernel reads first, in a layout with the halo that it wants."""
        value = group.source[place]
        if group.anchor is None:
            return self._like(value, result)
        layout = self._plan.layout(value)
        halo = family.halo(group.problem, group.anchor)
        if family.reads_blocks is False and not halo:
            layout = PLAIN
        elif halo or family.reads_blocks:
            block = family.block(group.problem, value.lengths[1], self._processor)
            # Numbers are read in any order, bytes are not.
            reorders = bool(family.reads_blocks) and value.dtype != "float32" and layout.block != block
            if layout == PLAIN or reorders:
                layout = Layout(block, halo, group.fill(place)) if any(map(any, halo)) else Layout(block)
        tensor = replace(self._tensor(value, layout), scale=group.scales.get(place))
        return tensor, self._form(value, layout)

    def _extra(self, value: Value, result: Tensor) -> tuple[Tensor, Any]:
        """What a chain reads further; constants lie as the result does."""
        if value.constant is None:
            return self._like(value, result)
        shape = (1,) * (len(result.shape) - len(value.lengths)) + value.lengths
        tensor = Tensor(shape, value.dtype, Layout(result.layout.block) if shape[1:2] != (1,) else PLAIN)
        return tensor, relax.const(tensor.packed(value.constant))

    def _like(self, value: Value, result: Tensor) -> tuple[Tensor, Any]:
        """The value in a layout whose vectors are the result's, if it is not much smaller."""
        forms, block = self._forms[id(value)], result.layout.block
        for layout, variable in forms.items():
            if layout.block == block:
                return self._tensor(value, layout), variable
        if value.shape is None or len(value.shape) != len(result.shape) or value.shape[1] != result.shape[1]:
            return self._any(value)
        return self._tensor(value, Layout(block)), self._form(value, Layout(block))

    def _any(self, value: Value) -> tuple[Tensor, Any]:
        """The value in a layout that is there."""
        layout, variable = next(iter(self._forms[id(value)].items()))
        return self._tensor(value, layout), variable

    def _form(self, value: Value, layout: Layout) -> Any:
        """The value in a layout, copied if need be."""
        if value.constant is not None:
            return relax.const(self._tensor(value, layout).packed(value.constant))
        forms = self._forms[id(value)]
        if layout not in forms:
            source, variable = self._any(value)
            output = Output(self._tensor(value, layout))
            forms[layout] = self._call("copy", CHAIN, (), [source], output, [variable])
        return forms[layout]

    def _tensor(self, value: Value, layout: Layout) -> Tensor:
        return Tensor(value.lengths, value.dtype, layout)

    def _renamed(self, expression: Any) -> Any:
        """An expression of the old function with the new one's variables."""
        emission = self

        @relax.expr_functor.mutator
        class Renamer(relax.PyExprMutator):  # type: ignore[misc]
            def visit_var_(self, var: Any) -> Any:
                value = emission._network.values.get(var)
                if value is None:
                    return var
                if value.constant is not None:
                    return relax.const(value.constant)
                return emission._form(value, PLAIN)

            visit_dataflow_var_ = visit_var_

        return Renamer().visit_expr(expression)
