"""Recovery by distillation, on networks that train in a second."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekit.errors import CorruptError, MismatchError, ModelError, SpecError, UsageError
from edgekit.recovery import KINDS, TASK_LOSSES, Augmentation, Progress, QuantizationRecipe, Recipe, Recovery
from edgekit.spec import Dim, TensorSpec
from edgekit.torch import distil_features
from edgekit.torch.distil import recover
from edgekit.torch.distil_features import match
from edgekit.torch.distil_losses import LABEL_LOSSES, guess, loss_of
from edgekit.torch.distil_samples import Samples, stacked
from edgekit.torch.fake_quantize import FakeQuantization

QUICK = Recipe(learning_rate=3e-3, batch=2, averaging=0.9, evaluations=8, patience=8)


@pytest.fixture(autouse=True)
def alone() -> Iterator[None]:
    """One thread and one seed: then everything here is exact."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


class Net(nn.Module):
    """A stem, two blocks and a head; ``width`` is what pruning makes smaller."""

    output_names = ("mask",)

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.drop = nn.Dropout(0.5)
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        return self.head(self.drop(self.body(x) + x))  # type: ignore[no-any-return]


def images(count: int = 8, side: int = 16) -> list[dict[str, Tensor]]:
    rng = torch.Generator().manual_seed(1)
    return [
        {"image": F.avg_pool2d(torch.randn(1, 1, side, side, generator=rng), 3, 1, 1)} for _ in range(count)
    ]


def teacher() -> Net:
    torch.manual_seed(3)
    net = Net()
    with torch.no_grad():
        net.stem[1].momentum = None  # statistics that mean something
        net.stem(torch.cat([sample["image"] for sample in images()]))
    return net.eval()


def damaged(net: nn.Module, by: float = 0.2) -> nn.Module:
    student = copy.deepcopy(net)
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(by * parameter.std(unbiased=False) * torch.randn(parameter.shape, generator=rng))
    return student


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


def apart(a: nn.Module, b: nn.Module) -> float:
    """Mean squared difference on images that nobody trained on."""
    fresh = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(9))
    with torch.no_grad():
        return float((a.eval()(fresh) - b.eval()(fresh)).square().mean())


def test_a_damaged_student_recovers() -> None:
    net = teacher()
    student, before = damaged(net), damaged(net)
    seen: list[Progress] = []
    report = recover(student, net, images(), steps=150, recipe=QUICK, on_progress=seen.append)
    assert apart(student, net) < 0.1 * apart(before, net)
    assert report.after < 0.5 * report.before
    assert report.after == min(report.held_out)
    assert report.kinds == {"mask": "logits"}
    assert report.features == ("stem", "body")
    assert (report.steps, report.ended, len(report.held_out)) == (150, "budget", 8)
    assert [p.step for p in seen] == list(range(151))
    assert [p.share for p in seen] == sorted(p.share for p in seen)
    assert seen[-1].best == report.after
    assert any("taken for logits" in note for note in report.notes)
    assert not math.isfinite(seen[0].loss) and all(math.isfinite(p.loss) for p in seen[1:])


def test_the_modules_keep_their_modes_and_the_teacher_its_weights() -> None:
    net = teacher()
    kept, student = copy.deepcopy(net), damaged(net).train()
    statistics = student.stem[1].running_mean.clone()
    recover(student, net, images(), steps=3, recipe=QUICK)
    assert student.training and student.drop.training and not net.training
    assert same(net, kept)
    assert torch.equal(student.stem[1].running_mean, statistics)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(part._forward_hooks for part in [*net.modules(), *student.modules()])


@pytest.mark.parametrize("quantization", [None, QuantizationRecipe(), QuantizationRecipe(ranges="learned")])
def test_a_resumed_run_gives_what_an_uninterrupted_one_gives(
    tmp_path: Path, quantization: QuantizationRecipe | None
) -> None:
    net, file = teacher(), tmp_path / "c.safetensors"

    def run(stop: int = 0, **options: object) -> tuple[nn.Module, Recovery | None]:
        def watch(progress: Progress) -> None:
            if progress.step == stop > 0:
                raise KeyboardInterrupt

        student = damaged(net)
        try:
            report = recover(
                student, net, images(), steps=24, recipe=QUICK, quantization=quantization,
                checkpoint=file, on_progress=watch, **options,
            )  # fmt: skip
        except KeyboardInterrupt:
            return student, None
        return student, report

    whole, report = run()
    file.unlink()
    _, nothing = run(stop=13)
    assert nothing is None and file.exists()
    torch.manual_seed(77)  # nothing depends on the global generator
    resumed, again = run(resume=True)
    assert same(whole, resumed)
    assert report is not None and again is not None
    assert (again.before, again.after, again.held_out, again.magnitudes) == (
        report.before,
        report.after,
        report.held_out,
        report.magnitudes,
    )
    ended, last = run(resume=True)
    assert same(whole, ended)
    assert last is not None and (last.steps, last.after) == (24, report.after)


def test_a_run_goes_on_with_another_number_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which adds up a spread in another order, and so gives another last digit."""
    net, file = teacher(), tmp_path / "c.safetensors"
    recover(damaged(net), net, images(), steps=4, recipe=QUICK, checkpoint=file)
    own = distil_features.spread
    monkeypatch.setattr(distil_features, "spread", lambda tensor: own(tensor) * (1 + 1e-7))
    assert (
        recover(damaged(net), net, images(), steps=8, recipe=QUICK, checkpoint=file, resume=True).steps == 8
    )


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    net, file = teacher(), tmp_path / "c.safetensors"

    def stop(progress: Progress) -> None:
        if progress.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(UsageError, match="no checkpoint"):
        recover(damaged(net), net, images(), steps=8, recipe=QUICK, checkpoint=file, resume=True)
    with pytest.raises(KeyboardInterrupt):
        recover(damaged(net), net, images(), steps=8, recipe=QUICK, checkpoint=file, on_progress=stop)
    with pytest.raises(MismatchError, match="another run"):
        recover(damaged(net, 0.3), net, images(), steps=8, recipe=QUICK, checkpoint=file, resume=True)
    with pytest.raises(MismatchError, match="another run"):
        recover(damaged(net), net, images(10), steps=8, recipe=QUICK, checkpoint=file, resume=True)
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CorruptError):
        recover(damaged(net), net, images(), steps=8, recipe=QUICK, checkpoint=file, resume=True)


def test_nothing_worse_than_what_came_is_returned() -> None:
    net = teacher()
    student, came = damaged(net, 0.01), damaged(net, 0.01)
    wild = Recipe(learning_rate=0.3, averaging=0.0, evaluations=40, patience=5)
    report = recover(student, net, images(), steps=40, recipe=wild)
    assert same(student, came)
    assert (report.ended, report.steps, len(report.held_out)) == ("early", 5, 5)
    assert report.after == report.before < min(report.held_out)
    assert any("they are kept" in note for note in report.notes)


def test_the_best_weights_are_kept_when_it_gets_worse_later() -> None:
    net = teacher()
    student = damaged(net)
    steps = 0

    def drift(outputs: Mapping[str, Tensor], sample: Mapping[str, Tensor]) -> Tensor:
        """After some time something else is asked for on the images that are trained on."""
        nonlocal steps
        steps += torch.is_grad_enabled()
        return outputs["mask"].square().mean() * (torch.is_grad_enabled() and steps > 50)

    recipe = Recipe(learning_rate=3e-3, batch=2, averaging=0.0, evaluations=20, patience=20, task_weight=10)
    report = recover(student, net, images(), steps=100, recipe=recipe, loss=drift)
    assert report.after == min(report.held_out) < report.before
    assert max(report.held_out[10:]) > 2 * min(report.held_out[:10]) >= 2 * report.after
    again = recover(copy.deepcopy(student), net, images(), steps=1, recipe=recipe)
    assert again.before == pytest.approx(report.after, rel=1e-6)


def test_too_large_steps_become_smaller() -> None:
    net = teacher()
    student, came = damaged(net, 0.05), damaged(net, 0.05)
    recipe = Recipe(learning_rate=0.3, batch=2, averaging=0.9, evaluations=16, patience=16)
    report = recover(student, net, images(), steps=160, recipe=recipe)
    assert report.held_out[0] > 10 * report.before
    assert report.after < 0.5 * report.before
    assert apart(student, net) < 0.5 * apart(came, net)


def test_a_loss_that_is_not_finite_is_refused() -> None:
    net = teacher()
    broken = damaged(net)
    with torch.no_grad():
        broken.head.bias[0] = math.nan
    with pytest.raises(ModelError, match="as it came is nan"):
        recover(broken, net, images(), steps=5, recipe=QUICK)
    with pytest.raises(ModelError, match="teacher gives NaN") as caught:
        recover(damaged(net), broken, images(), steps=5, recipe=QUICK)
    assert caught.value.where == "output 'mask'"

    def explode(outputs: object, sample: object) -> Tensor:
        return torch.tensor(math.inf if torch.is_grad_enabled() else 0.0)

    with pytest.raises(ModelError, match="became inf in step 1") as caught:
        recover(damaged(net), net, images(), steps=5, recipe=QUICK, loss=explode)
    assert "learning rate" in str(caught.value.hint)


def test_an_interrupted_student_has_the_best_weights_so_far() -> None:
    net = teacher()
    student, came = damaged(net), damaged(net)
    best = math.inf

    def stop(progress: Progress) -> None:
        nonlocal best
        best = progress.best
        if progress.step == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recover(student, net, images(), steps=60, recipe=QUICK, on_progress=stop)
    assert not same(student, came)
    assert all(parameter.grad is None for parameter in student.parameters())
    again = recover(student, net, images(), steps=1, recipe=QUICK)
    assert again.before == pytest.approx(best, rel=1e-5)


def test_arguments_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    net = teacher()
    for options in ({}, {"steps": 1, "minutes": 1.0}, {"minutes": -1.0}):
        with pytest.raises(UsageError, match="one budget"):
            recover(damaged(net), net, images(), **options)
    with pytest.raises(UsageError, match="two modules"):
        recover(net, net, images(), steps=1)
    with pytest.raises(UsageError, match="wants a checkpoint"):
        recover(damaged(net), net, images(), steps=1, resume=True)
    with pytest.raises(UsageError, match="no output"):
        recover(damaged(net), net, images(), steps=1, kinds={"musk": "image"})
    with pytest.raises(UsageError, match="unknown kind"):
        recover(damaged(net), net, images(), steps=1, kinds={"mask": "picture"})
    with pytest.raises(SpecError, match="two calibration samples"):
        recover(damaged(net), net, images(1), steps=1)
    with pytest.raises(ModelError, match="no module 'sten'"):
        recover(damaged(net), net, images(), steps=1, recipe=Recipe(features=("sten",)))
    with pytest.raises(ModelError, match="same outputs"):
        recover(Net(classes=2), net, images(), steps=1)


def test_a_pruned_student_follows_its_plan_or_a_learned_map() -> None:
    net = teacher()
    order = [6, 1, 2, 4]
    pruned = Net(width=4)
    with torch.no_grad():
        for name, tensor in pruned.state_dict().items():
            whole = net.state_dict()[name]
            if whole.dim() and tensor.shape[0] != whole.shape[0]:
                whole = whole[order]
            if whole.dim() > 1 and tensor.shape[1] != whole.shape[1]:
                whole = whole[:, order]
            tensor.copy_(whole)
    x = images()[0]["image"]
    plan = {"stem.0": order, "body.0": order}
    planned = match(pruned.eval(), net, lambda module: module(x), None, plan)
    assert [(m.path, m.channels, m.adapted) for m in planned.matches] == [
        ("stem", tuple(order), False),
        ("body", tuple(order), False),
    ]
    assert not planned.notes and not planned.maps
    with planned.recorded(net) as theirs, planned.recorded(pruned) as mine:
        net(x), pruned(x)
    stem_alone = match(pruned, net, lambda module: module(x), ("stem",), plan)
    assert float(stem_alone.loss(mine, theirs)) == pytest.approx(0, abs=1e-9)  # the very same channels

    mapped = match(pruned, net, lambda module: module(x), None, {})
    assert [m.adapted for m in mapped.matches] == [True, True]
    assert {name: tuple(t.shape) for name, t in mapped.maps.items()} == {"stem": (4, 8), "body": (4, 8)}
    assert all("learned map" in note for note in mapped.notes)
    for kept in (plan, {}):
        student = copy.deepcopy(pruned)
        report = recover(student, net, images(), steps=120, recipe=QUICK, kept=kept)
        assert apart(student, net) < 0.6 * apart(pruned, net)
        assert report.features == ("stem", "body")


def test_a_feature_that_cannot_be_compared_is_left_out_and_said() -> None:
    class Twice(Net):
        def forward(self, image: Tensor) -> Tensor:
            return self.head(self.body(self.body(self.stem(image))))

    net = Twice().eval()
    found = match(damaged(net), net, lambda module: module(images()[0]["image"]), ("stem", "body"), {})
    assert [m.path for m in found.matches] == ["stem"]
    assert found.notes == ("feature body is left out: it wants to run once and give one tensor",)


def test_batch_statistics_are_estimated_anew_where_that_helps() -> None:
    net = teacher()
    student = copy.deepcopy(net)
    student.stem[1].running_mean += 3.0
    report = recover(
        student, net, images(), steps=1, recipe=Recipe(batch_norm="estimated", learning_rate=1e-9)
    )
    assert any("estimated anew" in note for note in report.notes)
    assert report.after < 0.1 * report.before
    good = copy.deepcopy(net)
    statistics = good.stem[1].running_mean.clone()
    report = recover(good, net, images(), steps=1, recipe=Recipe(batch_norm="estimated", learning_rate=1e-9))
    assert torch.equal(good.stem[1].running_mean, statistics)
    assert any("no better" in note for note in report.notes)


def test_training_for_int8_loses_less_by_it() -> None:
    net = teacher()
    with torch.no_grad():  # channels of very different ranges read one tensor
        net.stem[0].weight[0] *= 30
        net.body[0].weight[:, 0] /= 30
    coarse = QuantizationRecipe(activation="int8", weight_bits=7)

    def loss_of_int8(module: nn.Module) -> float:
        quantization = FakeQuantization(module, coarse)
        with torch.no_grad():
            with quantization.observed():
                for sample in images():
                    module(sample["image"])
            quantization.settle()
            with quantization.applied():
                return sum(float((module(s["image"]) - net(s["image"])).square().mean()) for s in images())

    student = copy.deepcopy(net)
    naive = loss_of_int8(student)
    report = recover(student, net, images(), steps=100, recipe=QUICK, quantization=coarse)
    assert report.after < 0.75 * report.before
    assert loss_of_int8(student.eval()) < 0.85 * naive
    assert list(report.magnitudes) == ["stem.0", "body.0", "head"]
    assert set(student.state_dict()) == set(net.state_dict())


def test_labels_and_the_tasks_loss_lead_beyond_the_teacher() -> None:
    net = teacher()
    labelled = [{**sample, "label": (sample["image"] > 0).long()} for sample in images()]

    def task(outputs: dict[str, Tensor], sample: dict[str, Tensor]) -> Tensor:
        return LABEL_LOSSES["dice_cross_entropy"](outputs["mask"], sample["label"])

    def right(module: nn.Module) -> float:
        with torch.no_grad():
            hits = [
                (module(s["image"]).argmax(1, keepdim=True) == s["label"]).float().mean() for s in labelled
            ]
        return float(torch.stack(hits).mean())

    student = copy.deepcopy(net)
    recipe = Recipe(learning_rate=1e-2, batch=2, averaging=0.9, task_weight=10, features=())
    recover(student, net, labelled, steps=60, recipe=recipe, loss=task)
    assert right(net) < 0.6 < 0.8 < right(student.eval())


def test_a_budget_of_minutes_ends_in_time() -> None:
    net = teacher()
    report = recover(damaged(net), net, images(), minutes=0.02, recipe=QUICK)
    assert 1.2 <= report.seconds < 4
    assert report.steps > 3 and len(report.held_out) <= QUICK.evaluations


def test_modules_written_for_one_sample_are_given_one() -> None:
    class One(Net):
        def forward(self, image: Tensor) -> Tensor:
            if len(image) != 1:
                raise ValueError("one image")
            return super().forward(image)

    net = One().eval()
    report = recover(damaged(net), net, images(), steps=20, recipe=QUICK)
    assert report.after < report.before


# --- samples ----------------------------------------------------------------------------------------------

RANGED = TensorSpec("image", "float32", (1, 1, Dim(16, 64, 8), Dim(16, 64, 8)), "NCHW")


def varied(side: int = 48, **options: object) -> list[dict[str, Tensor]]:
    augmentation = Augmentation(**{"crop": 24, **options})
    return Samples(images(6, side), [RANGED], 0.3, augmentation, seed=0).drawn(0, 64)


def test_crops_keep_the_contract_and_flips_and_intensities_vary() -> None:
    drawn = varied()
    assert {tuple(s["image"].shape) for s in drawn} == {(1, 1, 24, 24)}
    assert len({float(s["image"].sum()) for s in drawn}) == 64
    assert len(stacked(drawn)) == 1 and stacked(drawn)[0]["image"].shape == (64, 1, 24, 24)
    plain = varied(16, flips=False, intensity=0.0)
    assert {tuple(s["image"].shape) for s in plain} == {(1, 1, 16, 16)}
    known = [s["image"] for s in images(6, 16)]
    assert all(any(torch.equal(s["image"], k) for k in known) for s in plain)


def test_several_inputs_and_labels_are_cut_alike() -> None:
    specs = [RANGED, TensorSpec("other", "float32", RANGED.dims, "NCHW")]
    source = [{**s, "other": s["image"] + 1, "label": s["image"] + 2} for s in images(6, 40)]
    for sample in Samples(source, specs, 0.3, Augmentation(crop=24), seed=0).drawn(3, 16):
        torch.testing.assert_close(sample["other"], sample["image"] + 1)
        torch.testing.assert_close(sample["label"], sample["image"] + 2)


def test_values_with_a_unit_and_fixed_shapes_are_left_alone() -> None:
    spec = TensorSpec("image", "float32", (1, 1, 48, 48), "NCHW", quantity="hounsfield")
    source = images(6, 48)
    drawn = Samples(source, [spec], 0.3, Augmentation(crop=24), seed=0).drawn(0, 8)
    sums = {round(float(s["image"].sum()), 3) for s in source}
    assert all(s["image"].shape[2:] == (48, 48) for s in drawn)
    assert all(round(float(s["image"].sum()), 3) in sums for s in drawn)  # flipped at most
    limited = TensorSpec("image", "float32", RANGED.dims, "NCHW", value_range=(-0.5, 0.5))
    clipped = [{"image": s["image"].clamp(-0.5, 0.5)} for s in source]
    drawn = Samples(clipped, [limited], 0.3, Augmentation(crop=24, intensity=0.5), seed=0).drawn(0, 8)
    assert all(s["image"].abs().max() <= 0.5 for s in drawn)


def test_held_out_samples_are_never_drawn_and_a_stream_is_as_good_as_a_list(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = [{"image": torch.full((1, 1, 16, 16), float(index))} for index in range(9)]
    plain = Augmentation(flips=False, intensity=0.0)
    kept = Samples(source, [RANGED], 0.3, plain, seed=0)
    held = {float(s["image"].mean()) for s in kept.held}
    assert held == {1.0, 4.0, 7.0}
    passes = [float(s["image"].mean()) for step in range(6) for s in kept.drawn(step, 2)]
    assert sorted(passes[:6]) == sorted(passes[6:]) == [0.0, 2.0, 3.0, 5.0, 6.0, 8.0]
    assert passes[:6] != passes[6:]

    class Stream:
        """Hands out samples that nobody can index, and counts."""

        read = 0

        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            for sample in source:
                self.read += 1
                yield dict(sample)

    monkeypatch.setattr("edgekit.torch.distil_samples.MEMORY_BYTES", 0)
    stream = Stream()
    streamed = Samples(stream, [RANGED], 0.3, plain, seed=0)
    assert not streamed.are_kept and kept.are_kept
    assert {float(s["image"].mean()) for s in streamed.held} == held
    read = stream.read
    values = [float(s["image"].mean()) for step in range(3) for s in streamed.drawn(step, 2)]
    assert values == [0.0, 2.0, 3.0, 5.0, 6.0, 8.0]
    assert stream.read - read <= len(source)
    later = Samples(stream, [RANGED], 0.3, plain, seed=0).drawn(2, 2)
    assert [float(s["image"].mean()) for s in later] == values[4:]


def test_samples_that_do_not_fit_are_refused() -> None:
    good = images(3)
    for bad, text in (
        ({"image": torch.full((1, 1, 16, 16), math.nan)}, "finite"),
        ({"image": torch.zeros(1, 1, 17, 16)}, "want image"),
        ({"picture": torch.zeros(1, 1, 16, 16)}, "want tensors image"),
    ):
        with pytest.raises(SpecError, match=text) as caught:
            Samples([*good, bad], [RANGED], 0.3, Augmentation(), seed=0)
        assert "sample 3" in str(caught.value.where)


# --- losses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels", [1, 2])
def test_a_loss_is_zero_at_agreement_and_grows_with_the_distance(kind: str, channels: int) -> None:
    known = torch.randn(2, channels, 8, 8)
    noise = torch.randn(known.shape)
    if kind == "probabilities":
        known = known.softmax(1) if channels > 1 else known.sigmoid()
    losses = [
        float(loss_of(kind, known + size * noise, known, float(known.std()))) for size in (0, 0.01, 0.1)
    ]
    assert losses[0] == pytest.approx(0, abs=1e-4)
    assert losses[0] < losses[1] < losses[2]


def test_kinds_are_guessed_by_name_shape_and_values() -> None:
    inputs = {"image": 100 * torch.randn(1, 1, 8, 8)}
    volume = {"moving": torch.randn(1, 1, 8, 8, 8)}
    assert guess("flow", torch.randn(1, 3, 8, 8, 8), volume) == "field"
    assert guess("velocity_vox", torch.randn(1, 2, 4, 4), inputs) == "field"
    assert guess("output", torch.randn(1, 3, 8, 8, 8), volume) == "logits"
    assert guess("denoised", 100 * torch.randn(1, 1, 8, 8), inputs) == "image"
    assert guess("mask", torch.rand(1, 1, 8, 8), inputs) == "probabilities"
    assert guess("mask", torch.randn(1, 4, 8, 8).softmax(1), inputs) == "probabilities"
    assert guess("logits", torch.randn(1, 1, 8, 8), inputs) == "logits"
    assert guess("class", torch.randn(1, 7), inputs) == "logits"
    assert guess("tokens", torch.randn(1, 7, 5), inputs) == "values"


def test_outputs_without_gradients_are_left_out_and_said() -> None:
    class Two(Net):
        output_names = ("mask", "labels", "hard")

        def forward(self, image: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
            logits = super().forward(image)
            return logits, logits.argmax(1), logits.argmax(1).float()

    net = Two().eval()
    report = recover(damaged(net), net, images(), steps=2, recipe=QUICK)
    assert list(report.kinds) == ["mask"]
    assert any("labels is not compared: torch.int64" in note for note in report.notes)
    assert any("hard is not compared: no gradient" in note for note in report.notes)

    class Hard(Net):
        def forward(self, image: Tensor) -> Tensor:
            return super().forward(image).argmax(1)

    with pytest.raises(ModelError, match="no output can be compared"):
        recover(Hard(), Hard(), images(), steps=1)


def test_the_named_losses_are_the_ones_there_are() -> None:
    assert tuple(LABEL_LOSSES) == TASK_LOSSES


def test_task_losses_fall_as_predictions_become_right() -> None:
    label = (torch.rand(2, 1, 8, 8) > 0.5).long()
    right = torch.cat([1 - label, label], 1).float() * 8
    for name in ("cross_entropy", "dice_cross_entropy"):
        for good in (right, label.float() * 16 - 8):
            assert float(LABEL_LOSSES[name](good, label)) < 0.2 < float(LABEL_LOSSES[name](-good, label))
    assert float(LABEL_LOSSES["l1"](right, right)) == float(LABEL_LOSSES["mse"](right, right)) == 0
