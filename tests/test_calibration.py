"""Ranges over a data set: those of the literal network, whatever the cap, and the cap holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from backends.backend_models import graph, weights
from dataset.image_sets import write_set

from edgekit import calibration, probe, runtime, volumes
from edgekit.calibration import activations, calibrate, channel_means, observe
from edgekit.dataset import Dataset
from edgekit.errors import GraphError, InputError, LimitError, PassError, SpecError
from edgekit.graph.graph import Graph
from edgekit.passes.ranges import Observer, Ranges
from edgekit.spec import LAYOUTS, Step, TensorSpec

NETWORK = """g (float[1, 1, {n}, {n}] x) => (float[1, 4, {n}, {n}] y) {{
    c = Conv <pads = [1, 1, 1, 1]> (x, w)
    r = Relu (c)
    s = Sigmoid (r)
    h = Shape (s)
    k = Constant <value = float[1] {{2.0}}> ()
    m = Mul (r, s)
    y = Add (m, k)
}}"""


def network(size: int = 8) -> Graph:
    return graph(NETWORK.format(n=size), w=weights(4, 1, 3, 3))


def data(folder: Path, model: Graph, size: int = 8, **options: int) -> Dataset:
    return Dataset.open([str(write_set(folder / "data", (size, size)))], model.given, **options)


def by_hand(model: Graph, dataset: Dataset, names: tuple[str, ...]) -> Ranges:
    observers = {name: Observer(name) for name in names}
    with probe.opened(model, names, threads=1) as opened:
        for sample in dataset:
            tensors = runtime.run_steps(model.before, sample.feeds)
            found = opened.run({spec.name: tensors[spec.name] for spec in model.inputs})
            for name, observer in observers.items():
                observer.add(found[name])
    return Ranges.of([observer.range() for observer in observers.values()])


def test_every_float_value_is_observed() -> None:
    assert activations(network()) == ("x", "c", "r", "s", "m", "y")


def test_ranges_are_those_of_the_literal_network(tmp_path: Path) -> None:
    model = network()
    dataset = data(tmp_path, model)
    events = list[str]()
    found = calibrate(model, dataset, threads=1, on_event=events.append)
    assert list(found) == ["x", "c", "r", "s", "m", "y"]
    assert found.digest() == by_hand(model, dataset, tuple(found)).digest()
    assert found["r"].non_negative and not found["c"].non_negative
    assert events == ["calibrate on 8 samples: 6 values"]
    assert calibrate(model, dataset, threads=1).digest() == found.digest()


def test_steps_before_the_network_run(tmp_path: Path) -> None:
    plain = network()
    model = replace(plain, before=(Step("median", ("x",), ("x",), {"radius": 1}),))
    dataset = data(tmp_path, model)
    found = calibrate(model, dataset, threads=1)
    assert found.digest() == by_hand(model, dataset, tuple(found)).digest()
    assert found.digest() != calibrate(plain, dataset, threads=1).digest()


def test_what_the_child_read_is_known_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    dataset = data(tmp_path, model)
    observe(model, dataset, ["c"], threads=1)
    wanted = data(tmp_path, model).record
    monkeypatch.setattr(volumes, "read", None)
    assert dataset.record == wanted


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Dataset]:
    """Values of 8 MiB, of which there are five."""
    model = graph(NETWORK.format(n=512).replace("float[1, 4,", "float[1, 8,"), w=weights(8, 1, 3, 3))
    return model, data(tmp_path_factory.mktemp("large"), model, 512)


def test_under_a_cap_values_are_observed_in_groups(large: tuple[Graph, Dataset]) -> None:
    model, dataset = large
    names = activations(model)
    whole = observe(model, dataset, names, threads=1)
    cap_bytes = 145 << 20
    found = observe(model, dataset, names, threads=1, memory_limit_bytes=cap_bytes)
    assert len(whole.groups) == 1 and len(found.groups) > 1
    assert sum(found.groups) == len(names)
    assert found.peak_bytes < min(cap_bytes, whole.peak_bytes)
    assert found.ranges.digest() == whole.ranges.digest()


def test_a_group_that_was_too_large_is_halved(
    large: tuple[Graph, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a runtime takes buffers that no shape tells of."""
    model, dataset = large
    monkeypatch.setattr(calibration._Memory, "_needed", lambda self, names: 0)
    alone = observe(model, dataset, ["c"], threads=1)
    # Beside c there is room for another value, not for two.
    cap_bytes = alone.peak_bytes + (12 << 20)
    found = observe(model, dataset, ["c", "r", "s"], threads=1, memory_limit_bytes=cap_bytes)
    assert found.groups == (1, 2) and list(found.ranges) == ["c", "r", "s"]


@pytest.mark.parametrize("cap_mib", [20, 60])
def test_a_cap_that_fits_nothing_is_refused_with_one_that_may(
    large: tuple[Graph, Dataset], cap_mib: int
) -> None:
    model, dataset = large
    with pytest.raises(LimitError, match=f"does not fit {cap_mib} MiB") as refused:
        observe(model, dataset, ["y"], threads=1, memory_limit_bytes=cap_mib << 20)
    assert refused.value.where == "value 'y' (1x8x512x512)"
    hint = str(refused.value.hint)
    assert hint.startswith("--calibration-memory-mib ")
    enough = int(hint.split()[1].rstrip(",")) << 20
    assert observe(model, dataset, ["y"], threads=1, memory_limit_bytes=enough).peak_bytes < enough


def test_time_ends(tmp_path: Path) -> None:
    model = network()
    with pytest.raises(LimitError, match="took more than"):
        calibrate(model, data(tmp_path, model), time_limit_s=0.01)


def test_a_refused_data_set_is_refused_from_the_child(tmp_path: Path) -> None:
    model = network()
    dataset = data(tmp_path, model)
    np.save(tmp_path / "data" / "case04.npy", np.full((8, 8), 3, np.float32))
    with pytest.raises(InputError, match="the image is constant") as refused:
        calibrate(model, dataset, threads=1)
    assert "case04" in str(refused.value.where)
    hounsfield = replace(model.inputs[0], quantity="hounsfield")
    (tmp_path / "data" / "case04.npy").unlink()
    np.save(tmp_path / "data" / "case09.npy", np.load(tmp_path / "data" / "case03.npy") + 1)
    with pytest.raises(InputError, match="no Hounsfield units"):
        calibrate(model, Dataset.open([str(tmp_path / "data")], [hounsfield]), threads=1)


def test_values_that_overflow_are_named(tmp_path: Path) -> None:
    model = graph(
        """g (float[1, 1, 8, 8] x) => (float[1, 1, 8, 8] y) <float k = {1e30}>
        { big = Mul (x, k)  huge = Mul (big, k)  y = Tanh (huge) }"""
    )
    with pytest.raises(PassError, match="not all finite") as refused:
        calibrate(model, data(tmp_path, model), threads=1)
    assert refused.value.where == "tensor 'huge'"


def test_means_of_channels(tmp_path: Path) -> None:
    model = network()
    dataset = data(tmp_path, model)
    found = channel_means(model, dataset, ["c", "y"], threads=1)
    assert list(found) == ["c", "y"]
    with probe.opened(model, ["c"], threads=1) as opened:
        values = np.concatenate([opened.run(sample.feeds)["c"] for sample in dataset])
    np.testing.assert_allclose(found["c"], values.mean(axis=(0, 2, 3), dtype=np.float64), rtol=1e-12)
    flat = graph("g (float[1, 1, 8, 8] x) => (float y) { y = ReduceMax <keepdims = 0> (x) }")
    with pytest.raises(PassError, match="channels along axis 1"):
        channel_means(flat, dataset, ["y"], threads=1)


def test_another_graph_or_name_is_refused(tmp_path: Path) -> None:
    model = network()
    other = TensorSpec("ct", "float32", (1, 1, 8, 8), LAYOUTS[4])
    dataset = Dataset.open([str(write_set(tmp_path / "data"))], [other])
    with pytest.raises(SpecError, match="is for ct, the model takes x"):
        calibrate(model, dataset)
    with pytest.raises(GraphError, match="'cc'"):
        observe(model, data(tmp_path, model), ["cc"])


def test_several_inputs_and_an_unused_one(tmp_path: Path) -> None:
    model = graph(
        """g (float[1, 1, 8, 8] a, float[1, 1, 8, 8] b) => (float[1, 1, 8, 8] y, float[1, 1, 8, 8] z)
        { y = Neg (a)  z = Exp (b) }"""
    )
    texts = [f"{n}={write_set(tmp_path / n, high=h)}" for n, h in (("a", 1.0), ("b", 2.0))]
    found = observe(model, Dataset.open(texts, model.given), ["y", "b"], threads=1).ranges
    assert list(found) == ["y", "b"]
    assert found["y"].maximum <= 0 and found["b"].maximum > 1.9
