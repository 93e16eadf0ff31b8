"""The search as a whole: with times and judges that are made up, and one small network on a real backend."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import small_quantizer
from backends import backend_models
from backends.backend_models import TARGET

from edgekit import machine, mixed, probe
from edgekit.errors import CompileError, UsageError
from edgekit.graph.graph import Graph
from edgekit.mixed import fastest, latency, trial
from edgekit.mixed.latency import Time
from edgekit.passes.half import HalfPass
from edgekit.passes.quantize import QuantizePass, Recipe
from edgekit.passes.quantize import groups as quantize_groups
from edgekit.passes.ranges import Observer, Ranges
from edgekit.spec import Array

NAMES = ("a", "c", "e", "out")


def network() -> Graph:
    """Four convolutions in a row; nodes are called like their outputs."""
    text = """net (float[1, 2, 16, 16] image) => (float[1, 2, 16, 16] out) {
        a = Conv <pads = [1, 1, 1, 1]> (image, w)  b = Relu (a)
        c = Conv <pads = [1, 1, 1, 1]> (b, v)  d = Relu (c)
        e = Conv <pads = [1, 1, 1, 1]> (d, u)  f = Relu (e)  out = Conv <pads = [1, 1, 1, 1]> (f, t) }"""
    shapes = {"w": (8, 2, 3, 3), "v": (8, 8, 3, 3), "u": (8, 8, 3, 3), "t": (2, 8, 3, 3)}
    tensors = {n: backend_models.weights(*shape, seed=ord(n)) for n, shape in shapes.items()}
    graph = backend_models.graph(text, **tensors)
    model = graph.edit()
    for node in model.graph:
        node.name = node.outputs[0].name
    return graph.with_model(model, "nodes are called like their outputs")


GRAPH = network()
GROUPS = small_quantizer.groups(GRAPH)
LARGEST = {"image": 4.0, "b": 4.0, "d": 4.0, "f": 4.0}
SAMPLES = tuple(backend_models.sample(GRAPH, seed) for seed in range(2))


QUIET = replace(machine.record(), load=0.5, cores=2)


def build() -> mixed.Build:
    lower = {"int8": lambda g, keep: small_quantizer.quantize(g, keep, LARGEST)}
    return mixed.builder(GRAPH, GROUPS, lower)


def quantized(graph: Graph) -> set[str]:
    """The layers of a graph that read bytes."""
    layers = [node for node in graph.model.graph if node.op_type == "Conv"]
    makers = {str(node.name): node.inputs[0].producer() for node in layers}  # type: ignore[union-attr]
    return {name for name, maker in makers.items() if maker and maker.op_type == "DequantizeLinear"}


def test_a_builder_makes_what_is_asked_for() -> None:
    made = build()
    assert made({}) is GRAPH
    assert quantized(made({"a": "int8", "e": "int8"})) == {"a", "e"}
    assert quantized(made({"a": "float32", "c": "int8"})) == {"c"}
    order: list[tuple[str, frozenset[str]]] = []

    def lower(precision: str) -> Callable[[Graph, frozenset[str]], Graph]:
        def make(graph: Graph, keep: frozenset[str]) -> Graph:
            order.append((precision, keep))
            return graph

        return make

    both = mixed.builder(GRAPH, GROUPS, {name: lower(name) for name in ("int8", "bfloat16")})
    both({"a": "int8", "out": "bfloat16"})
    assert order == [
        ("int8", frozenset({"c", "d", "e", "f", "out"})),
        ("bfloat16", frozenset({"a", "b", "c", "d", "e", "f"})),
    ]


def test_a_bench_wants_to_know_what_is_good_enough() -> None:
    with pytest.raises(UsageError, match="nothing says what is good enough"):
        mixed.Bench("onnxruntime", TARGET, SAMPLES)
    with pytest.raises(UsageError, match="want at least one sample"):
        mixed.Bench("onnxruntime", TARGET, (), min_snr_db=30)


@dataclass
class World:
    """What takes how long, and what does how much harm; everything is counted.

    Attributes:
        single_ms: Of each group in float32.
        bytes_ms: Of each group in bytes between groups in bytes.
        border_ms: More, where it stands alone.
        harm: Of each group, as a share of the signal's power.
        whole_ms: Of the whole network for a set of groups in bytes; the sum of the groups by default.
        crashes: Sets of groups that cannot be compiled.
    """

    single_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(NAMES, 2.0))
    bytes_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(NAMES, 1.0))
    border_ms: dict[str, float] = field(default_factory=lambda: dict.fromkeys(NAMES, 0.1))
    harm: dict[str, float] = field(default_factory=lambda: dict.fromkeys(NAMES, 1e-5))
    whole_ms: Callable[[set[str]], float] | None = None
    crashes: Callable[[set[str]], bool] = lambda some: False
    tried: list[set[str]] = field(default_factory=list)
    opened: int = 0

    def takes_ms(self, some: set[str]) -> float:
        if self.whole_ms is not None and some:
            return self.whole_ms(some)
        return sum(self.bytes_ms[n] if n in some else self.single_ms[n] for n in NAMES)

    def time(self, milliseconds: float) -> Time:
        return Time(milliseconds * 1e-3, milliseconds * 1e-6, 50)

    def measure(self, groups: Mapping[str, Any], *_: Any, **__: Any) -> dict[str, dict[str, Time]]:
        return {
            name: {
                "float32": self.time(self.single_ms[name]),
                "int8": self.time(self.bytes_ms[name]),
                "int8 alone": self.time(self.bytes_ms[name] + self.border_ms[name]),
            }
            for name in groups
        }

    def timed(self, trials: Mapping[str, Any], *_: Any) -> dict[str, Time]:
        return {name: self.time(self.takes_ms(one.some)) for name, one in trials.items()}

    def harms(self, names: Sequence[str], precision: str, compiled: Any = None) -> dict[str, float]:
        return {name: self.harm[name] for name in names}

    in_decibels = staticmethod(mixed.decibels)


class FakeTrial:
    def __init__(self, graph: Graph, bench: mixed.Bench, world: World) -> None:
        self.graph, self.bench, self.world = graph, bench, world
        self.some = quantized(graph)
        self.outputs: list[dict[str, Array]] = []
        self.snr_db, self.failure = math.inf, ""
        world.tried.append(self.some)
        world.opened += 1

    def judge(self, wanted: Any) -> None:
        self.snr_db = mixed.decibels(sum(self.world.harm[name] for name in self.some))
        if self.bench.min_snr_db is not None and self.snr_db < self.bench.min_snr_db:
            self.failure = f"{self.snr_db:.1f} dB"
        elif self.bench.gate is not None:
            self.failure = self.bench.gate(lambda feeds: dict.fromkeys(self.some))  # type: ignore[arg-type]

    def close(self) -> None:
        self.world.opened -= 1


def find(world: World, monkeypatch: pytest.MonkeyPatch, **wanted: Any) -> mixed.Assignment:
    class Fake(FakeTrial):
        @staticmethod
        def of(graph: Graph, bench: mixed.Bench) -> FakeTrial:
            if world.crashes(quantized(graph)):
                raise CompileError("compiling ended abnormally (Segmentation fault)\n    | a log")
            return Fake(graph, bench, world)

    monkeypatch.setattr(latency, "measure", world.measure)
    monkeypatch.setattr(fastest, "timed", world.timed)
    monkeypatch.setattr(fastest, "Trial", Fake)
    monkeypatch.setattr(machine, "record", lambda: QUIET)
    bench = mixed.Bench("onnxruntime", TARGET, SAMPLES, **(wanted or {"min_snr_db": 30}))
    found = mixed.search(GRAPH, GROUPS, build(), bench, world)  # type: ignore[arg-type]
    assert world.opened == 0, "a session was left open"
    assert found.keep == {
        node
        for group, one in zip(GROUPS, found.choices, strict=True)
        for node in group.nodes
        if one.precision == "float32"
    }
    assert quantized(found.graph) == {one.group for one in found.choices if one.precision == "int8"}
    assert found.mixed_s <= found.float_s
    return found


def why(found: mixed.Assignment) -> dict[str, str]:
    return {one.group: one.why for one in found.choices}


def test_where_all_gain_and_nothing_is_lost_all_are_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    found = find(world, monkeypatch)
    assert world.tried == [set(), set(NAMES)], "float32, and the fastest plan"
    assert (found.precision, found.reason, found.notes) == ("int8", "", ())
    assert (found.float_s, found.mixed_s) == (pytest.approx(8e-3), pytest.approx(4e-3))
    assert found.snr_db == pytest.approx(-10 * math.log10(4e-5))
    assert all(one.saved_s == pytest.approx(1e-3) for one in found.choices)
    assert all(one.sensitivity_db == pytest.approx(50) for one in found.choices)


def test_groups_that_do_not_gain_stay_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(bytes_ms={"a": 2.5, "c": 1, "e": 1, "out": 1.99})
    found = find(world, monkeypatch)
    assert quantized(found.graph) == {"c", "e"}
    assert why(found)["a"] == "not clearly faster: 2.5 ms in int8, 2 ms in float32"
    assert why(found)["out"] == "not clearly faster: 1.99 ms in int8, 2 ms in float32"
    assert found.notes == ("2 of 4 layers stay float32: 2 not clearly faster (a, out)",)
    assert math.isnan(found.choices[0].saved_s) and math.isnan(found.choices[0].sensitivity_db)


def test_the_most_harmful_is_given_up_until_the_gate_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(
        bytes_ms={"a": 1.9, "c": 0.5, "e": 1.0, "out": 1.0},
        harm={"a": 1e-3, "c": 2e-3, "e": 2e-3, "out": 1e-6},
    )
    found = find(world, monkeypatch, min_snr_db=25)
    # a does 10 of harm for each second, e does 2, c 1.3: without a and e it is enough.
    assert quantized(found.graph) == {"c", "out"}
    assert why(found)["a"] == "for accuracy: 30.0 dB with it alone"
    assert found.notes == ("2 of 4 layers stay float32: 2 for accuracy (a, e)",)
    assert found.snr_db >= 25


def test_the_gate_of_the_task_decides_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(harm={"a": 1e-5, "c": 1e-5, "e": 1e-5, "out": 1e-3})

    def gate(run: Callable[[Any], Any]) -> str:
        return "dice drops by 0.02, allowed are 0.01" if "out" in run({}) else ""

    found = find(world, monkeypatch, gate=gate)
    assert quantized(found.graph) == {"a", "c", "e"}
    assert why(found)["out"] == "for accuracy: 30.0 dB with it alone"


def test_where_nothing_is_good_enough_the_answer_is_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = find(World(), monkeypatch, gate=lambda run: "dice is not a number" if run({}) else "")
    assert found.graph is GRAPH and found.precision == "float32"
    assert found.reason == "nothing smaller is good enough: dice is not a number"
    assert found.notes == (f"all layers stay float32: {found.reason}",)
    assert (found.mixed_s, found.snr_db) == (found.float_s, math.inf)
    assert set(why(found).values()) == {found.reason}


def test_what_is_slower_as_a_whole_is_not_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(World(whole_ms=lambda some: 8.5), monkeypatch)
    assert found.graph is GRAPH
    assert found.reason == "the whole network takes 8.5 ms with smaller precisions, 8 ms in float32"


def test_a_busy_machine_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__name__ + ".QUIET", replace(QUIET, load=7.25))
    told = find(World(), monkeypatch).notes
    assert told == ("the machine was busy while layers were timed: load 7.2, 2 cores",)


def test_a_gain_within_the_noise_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    found = find(World(whole_ms=lambda some: 7.9), monkeypatch)
    assert found.graph is GRAPH and found.precision == "float32"


def test_what_gains_as_a_whole_is_found_although_no_group_does(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(bytes_ms=dict.fromkeys(NAMES, 2.1), whole_ms=lambda some: 5.0)
    found = find(world, monkeypatch)
    assert quantized(found.graph) == set(NAMES)
    assert found.notes == ()


def test_a_vendor_that_crashes_on_a_plan_makes_it_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(harm={"a": 9e-5, "c": 1e-5, "e": 1e-5, "out": 1e-5}, crashes=lambda some: "a" in some)
    found = find(world, monkeypatch)
    assert quantized(found.graph) == {"c", "e", "out"}
    always = find(World(crashes=bool), monkeypatch)
    assert always.reason == "nothing smaller is good enough: compiling ended abnormally (Segmentation fault)"


def test_a_group_between_float32_layers_has_to_pay_for_its_borders(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(bytes_ms={"a": 1.8, "c": 2.5, "e": 1.0, "out": 1.0}, border_ms=dict.fromkeys(NAMES, 0.5))
    found = find(world, monkeypatch)
    assert quantized(found.graph) == {"e", "out"}
    assert why(found)["a"] == (
        "between float32 layers: changing types at its borders takes longer than it saves"
    )


def test_groups_that_cannot_be_timed_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    measure = world.measure

    def measured(*args: Any, **options: Any) -> dict[str, dict[str, Time]]:
        times = measure(*args, **options)
        times["c"]["int8"] = Time(error="the child crashed")
        return times

    monkeypatch.setattr(world, "measure", measured)
    found = find(world, monkeypatch, gate=lambda run: "no" if "c" in run({}) else "")
    assert quantized(found.graph) == {"a", "e", "out"}
    assert why(found)["c"] == "not possible: the child crashed"


def test_two_precisions_make_steps_of_a_ladder(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one stands in for a half precision: it reads bytes of another name."""
    world = World(harm={"a": 1e-5, "c": 1e-2, "e": 1e-5, "out": 1e-5})
    times = world.measure

    def measured(groups: Mapping[str, Any], *_: Any, **__: Any) -> dict[str, dict[str, Time]]:
        return {name: {**forms, "float16": world.time(1.5)} for name, forms in times(groups).items()}

    def harms(names: Sequence[str], precision: str, compiled: Any = None) -> dict[str, float]:
        return {name: world.harm[name] if precision == "int8" else 1e-7 for name in names}

    monkeypatch.setattr(world, "measure", measured)
    monkeypatch.setattr(world, "harms", harms)
    asked: list[dict[str, str]] = []

    def make(precisions: Mapping[str, str]) -> Graph:
        asked.append(dict(precisions))
        return build()({name: one for name, one in precisions.items() if one == "int8"})

    class Fake(FakeTrial):
        of = staticmethod(lambda graph, bench: Fake(graph, bench, world))

    monkeypatch.setattr(latency, "measure", world.measure)
    monkeypatch.setattr(fastest, "timed", world.timed)
    monkeypatch.setattr(fastest, "Trial", Fake)
    monkeypatch.setattr(machine, "record", lambda: QUIET)
    bench = mixed.Bench("onnxruntime", TARGET, SAMPLES, min_snr_db=30)
    found = mixed.search(GRAPH, GROUPS, make, bench, world, precisions=("int8", "float16"))  # type: ignore[arg-type]
    assert {one.group: one.precision for one in found.choices} == {
        "a": "int8",
        "c": "float16",
        "e": "int8",
        "out": "int8",
    }
    assert found.precision == "int8" and found.notes == ()
    assert {"a": "int8", "c": "float16", "e": "int8", "out": "int8"} in asked


def test_one_network_from_end_to_end() -> None:
    """Times are real here, so that which answer it is cannot be said; that it keeps its promises can."""
    told: list[str] = []
    sensitivity = mixed.Sensitivity(GRAPH, build(), SAMPLES, threads=1)
    seen: list[dict[str, Array]] = []

    def gate(run: trial.Run) -> str:
        seen.append(run(SAMPLES[0]))
        return ""

    bench = mixed.Bench("onnxruntime", TARGET, SAMPLES, gate=gate, min_snr_db=15, threads=1)
    found = mixed.search(GRAPH, GROUPS, build(), bench, sensitivity, on_event=told.append)
    assert told[0] == "compile float32 with onnxruntime" and told[-1].startswith("measure float32")
    assert [one.group for one in found.choices] == list(NAMES)
    assert all((one.precision == "float32") == bool(one.why) for one in found.choices)
    assert all(list(results) == ["out"] and np.isfinite(results["out"]).all() for results in seen)
    if found.reason:
        assert found.graph is GRAPH and found.mixed_s == found.float_s
    else:
        assert found.mixed_s < found.float_s and found.snr_db >= 15
        assert seen and quantized(found.graph)


def known() -> Ranges:
    """Ranges of what the layers read and make."""
    observers = {name: Observer(name) for name in ("image", *"abcdef", "out")}
    with probe.opened(GRAPH, observers, threads=1, alone=True) as opened:
        for feeds in SAMPLES:
            for name, array in opened.run(feeds).items():
                observers[name].add(array)
    return Ranges.of([one.range() for one in observers.values()])


def test_the_passes_of_edgekit_fit() -> None:
    ranges = known()
    recipe = Recipe.for_target(TARGET)
    lower: dict[str, Callable[[Graph, frozenset[str]], Graph]] = {
        "int8": lambda g, keep: QuantizePass(ranges, replace(recipe, keep=keep)).run(g, TARGET).graph,
        "bfloat16": lambda g, keep: HalfPass("bfloat16", ranges, keep).run(g, TARGET).graph,
    }
    groups = quantize_groups(GRAPH)
    assert [(group.name, group.nodes) for group in groups] == [(group.name, group.nodes) for group in GROUPS]
    made = mixed.builder(GRAPH, groups, lower)({"a": "int8", "c": "int8", "out": "bfloat16"})
    assert quantized(made) == {"a", "c"}
    kinds = {str(node.name): node.outputs[0].dtype for node in made.model.graph if node.op_type == "Conv"}
    assert {name: kind and kind.name for name, kind in kinds.items()} == {
        "a": "FLOAT",
        "c": "FLOAT",
        "e": "FLOAT",
        "out": "BFLOAT16",
    }


def test_the_rows_of_the_report() -> None:
    made = build()({"a": "int8", "e": "int8"})
    precisions = {"a": ("int8", ""), "c": ("float32", "slow"), "e": ("int8", ""), "out": ("float32", "")}
    choices = tuple(mixed.Choice(group.name, group.nodes, *precisions[group.name]) for group in GROUPS)
    assignment = mixed.Assignment("onnxruntime", made, choices, 2e-3, 1e-3, 30.0)
    ranges = known()
    rows = mixed.layer_reports(GRAPH, assignment, ranges, SAMPLES, threads=1)
    assert [(row.name, row.operator, row.precision, row.reason) for row in rows] == [
        ("a", "Conv", "int8", ""),
        ("c", "Conv", "float32", "slow"),
        ("e", "Conv", "int8", ""),
        ("out", "Conv", "float32", ""),
    ]
    assert [(row.minimum, row.maximum) for row in rows] == [
        (ranges[name].minimum, ranges[name].maximum) for name in ("b", "d", "f", "out")
    ]
    # d is rounded for e, and reaches a little further than its bytes; nothing else that a group makes is.
    assert [math.isnan(row.saturation) for row in rows] == [True, False, True, True]
    assert rows[1].saturation == ranges["d"].clipped_share(4.0)
    assert all(20 < row.snr_db < 60 for row in rows)
    assert rows[0].snr_db > rows[3].snr_db, "noise adds up on the way"


def test_layers_of_float32_alone_have_no_noise() -> None:
    choices = tuple(mixed.Choice(group.name, group.nodes, "float32", "slow") for group in GROUPS)
    assignment = mixed.Assignment("onnxruntime", GRAPH, choices, 1.0, 1.0, math.inf, "slow")
    rows = mixed.layer_reports(GRAPH, assignment, Ranges({}), SAMPLES, threads=1)
    assert all(math.isnan(row.snr_db) and math.isnan(row.minimum) for row in rows)
