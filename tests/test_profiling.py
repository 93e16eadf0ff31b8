from __future__ import annotations

import gc
import itertools
import json
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np
import pytest

from edgekit import profiling, schema
from edgekit.errors import CorruptError, UsageError
from edgekit.machine import Machine
from edgekit.profiling import measure, measure_interleaved, profile, summary
from edgekit.reports import LatencyReport, nearest_rank
from edgekit.spec import Array, Dim, TensorSpec

FEEDS: dict[str, Array] = {"x": np.zeros((1, 2), np.float32)}
MS = 1_000_000


class Clock:
    """A clock that only sessions and pauses move, and a record of who ran."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.ran: list[str] = []

    def sleep(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)
        self.ran.append("pause")


class Fake:
    """A session whose k-th run takes ``duration_ms(k)``."""

    load_s = 0.25
    threads = 2
    packages = ("hypothesis", "no-such-package")

    def __init__(self, clock: Clock, duration_ms: Callable[[int], float] | float, name: str = "a") -> None:
        self._clock, self.name, self.count = clock, name, 0
        self._duration = duration_ms if callable(duration_ms) else lambda run: duration_ms

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self._clock.now_ns += round(self._duration(self.count) * MS)
        self._clock.ran.append(self.name)
        self.count += 1
        return {}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    fake = SimpleNamespace(perf_counter_ns=lambda: clock.now_ns, sleep=clock.sleep)
    monkeypatch.setattr(profiling, "time", fake)
    return clock


def test_first_run_warm_up_and_samples_are_kept_apart(clock: Clock) -> None:
    session = Fake(clock, lambda run: 500 if run == 0 else 30 if run < 8 else 10)
    report = measure(session, FEEDS, runs=20)
    assert report.first_run_s == 0.5
    assert report.warmup_s[:7] == (0.03,) * 7 and report.warmup_s[-1] == 0.01
    assert report.samples_s == (0.01,) * 20
    assert report.settled and session.count == 1 + len(report.warmup_s) + 20
    assert (report.load_s, report.threads, report.shapes) == (0.25, 2, {"x": (1, 2)})
    assert {"numpy", "hypothesis"} <= report.machine.packages.keys()
    assert "no-such-package" not in report.machine.packages


def test_the_warm_up_goes_on_while_the_median_moves_and_stops_at_its_cap(clock: Clock) -> None:
    steady = measure(Fake(clock, 10), FEEDS, runs=1)
    assert steady.settled and len(steady.warmup_s) == 10
    faster_and_faster = Fake(clock, lambda run: 100 * 0.9**run if run < 40 else 1)
    assert len(measure(faster_and_faster, FEEDS, runs=1).warmup_s) > 35
    restless = measure(Fake(clock, lambda run: 10 * 1.05**run), FEEDS, runs=1, warmup_seconds=0.5)
    assert not restless.settled
    assert restless.first_run_s + sum(restless.warmup_s[:-1]) < 0.5
    assert any("settled" in note for note in restless.notes)


def test_time_decides_the_number_of_runs_within_its_bounds(clock: Clock) -> None:
    assert len(measure(Fake(clock, 100), FEEDS, seconds=2).samples_s) == 20
    assert len(measure(Fake(clock, 900), FEEDS, seconds=1).samples_s) == 3, "at least three"
    assert len(measure(Fake(clock, 9000), FEEDS, seconds=5).samples_s) == 1, "longer than all the time"
    assert len(measure(Fake(clock, 0.001), FEEDS, seconds=1).samples_s) == 10_000


def test_a_slow_first_run_leaves_no_time_to_warm_up(clock: Clock) -> None:
    report = measure(Fake(clock, 5000), FEEDS, seconds=1, warmup_seconds=3)
    assert report.warmup_s == () and not report.settled


@pytest.mark.parametrize("amount", [{"runs": -1}, {"seconds": 0}, {"seconds": -1}, {"seconds": float("nan")}])
def test_nothing_to_measure_is_refused(clock: Clock, amount: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="more than 0 seconds"):
        measure(Fake(clock, 1), FEEDS, **amount)  # type: ignore[arg-type]


def test_candidates_share_the_time_fairly(clock: Clock) -> None:
    durations = {"fast": 1.0, "middle": 20.0, "slow": 800.0}
    sessions = {name: Fake(clock, ms, name) for name, ms in durations.items()}
    reports = measure_interleaved(sessions, FEEDS, seconds=12)
    used = {name: sum(report.samples_s) for name, report in reports.items()}
    assert used["fast"] == pytest.approx(4, abs=0.1)
    assert used["middle"] == pytest.approx(4, abs=0.1)
    assert len(reports["slow"].samples_s) == 5
    for name, report in reports.items():
        assert report.p50_s == pytest.approx(durations[name] / 1e3)


def test_candidates_are_spread_over_the_whole_measurement(clock: Clock) -> None:
    sessions = {name: Fake(clock, 5.0, name) for name in "abc"}
    reports = measure_interleaved(sessions, FEEDS, seconds=6, warmup_seconds=0)
    ran = clock.ran[3:]
    quarter = len(ran) // 4
    for part in range(4):
        counts = [ran[part * quarter : (part + 1) * quarter].count(name) for name in "abc"]
        assert max(counts) - min(counts) <= 33, "at most three turns apart"
    followers = {(a, b) for a, b in itertools.pairwise(ran) if a != b}
    assert len(followers) == 6, "everybody comes after everybody"
    assert all(len(report.samples_s) in (400, 401) for report in reports.values())


def test_what_the_neighbour_left_behind_is_not_counted(clock: Clock) -> None:
    """Runs right after another candidate's are slow, as with worker threads that still spin."""

    class Disturbed(Fake):
        def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            if clock.ran and clock.ran[-1] not in (self.name, "pause"):
                clock.now_ns += 3 * MS
            return super().run(feeds)

    sessions = {"short": Disturbed(clock, 1, "short"), "long": Disturbed(clock, 200, "long")}
    reports = measure_interleaved(sessions, FEEDS, seconds=4)
    assert set(reports["short"].samples_s) == {0.001}
    assert set(reports["long"].samples_s) == {0.2}
    assert 0.004 in reports["short"].warmup_s


def test_a_very_slow_candidate_gets_one_run(clock: Clock) -> None:
    sessions = {"fast": Fake(clock, 10, "fast"), "slow": Fake(clock, 60_000, "slow")}
    reports = measure_interleaved(sessions, FEEDS, seconds=4)
    assert len(reports["slow"].samples_s) == 1
    assert len(reports["fast"].samples_s) == 200
    assert measure_interleaved({}, FEEDS) == {}


def test_another_clock_tells_the_time(clock: Clock) -> None:
    """Of what a run takes by the wall clock, it itself uses half."""
    sessions = {name: Fake(clock, ms, name) for name, ms in {"fast": 10, "slow": 40}.items()}
    reports = measure_interleaved(sessions, FEEDS, seconds=4, clock=lambda: clock.now_ns // 2)
    assert set(reports["fast"].samples_s) == {0.005} and len(reports["fast"].samples_s) in (400, 401)
    assert set(reports["slow"].samples_s) == {0.020}


def test_stages_are_kept_where_the_session_tells_them(clock: Clock) -> None:
    class Staged(Fake):
        def run(self, feeds: Mapping[str, Array], stages: dict[str, float] | None = None) -> dict[str, Array]:
            super().run(feeds)
            if stages is not None:
                stages.update(network=0.007, warp=0.003)
            return {}

    report = measure(Staged(clock, 10), FEEDS, runs=4)
    assert report.stages_s == {"network": (0.007,) * 4, "warp": (0.003,) * 4}
    assert measure(Staged(clock, 10), FEEDS, runs=4, stages=False).stages_s == {}
    assert measure(Fake(clock, 10), FEEDS, runs=4).stages_s == {}


def test_progress_rises_to_one(clock: Clock) -> None:
    seen: list[float] = []
    measure(Fake(clock, 20), FEEDS, seconds=1, on_progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1 and len(seen) > 5
    seen.clear()
    pair = {"a": Fake(clock, 20, "a"), "b": Fake(clock, 300, "b")}
    measure_interleaved(pair, FEEDS, seconds=1, on_progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1


def test_garbage_collection_is_as_before_even_after_an_error(clock: Clock) -> None:
    def fail(run: int) -> float:
        raise UsageError("no")

    with pytest.raises(UsageError):
        measure(Fake(clock, fail), FEEDS)
    assert gc.isenabled() and gc.get_freeze_count() == 0


def test_profile_makes_inputs_of_its_own() -> None:
    class Real:
        inputs = (TensorSpec("ct", "float32", (1, 1, Dim(8, 16, 4), 8), "NCHW"),)

        def run(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
            self.inputs[0].check(feeds["ct"])
            return feeds

    report = profile(Real(), runs=3)
    assert report.shapes == {"ct": (1, 1, 8, 8)} and len(report.samples_s) == 3
    assert report.machine.cores >= 1 and report.peak_memory_bytes > 0
    given = {"ct": np.ones((1, 1, 12, 8), np.float32)}
    assert profile(Real(), given, runs=3).shapes == {"ct": (1, 1, 12, 8)}


def report_of(samples_s: tuple[float, ...], **changes: object) -> LatencyReport:
    where = Machine("cpu", "x86_64", 2, (), 1, "Linux", "3.11", 0.1)
    fields = {
        "load_s": 0.1,
        "first_run_s": 0.2,
        "warmup_s": (0.1,),
        "settled": True,
        "stages_s": {"network": samples_s},
        "peak_memory_bytes": 1,
        "threads": 0,
        "shapes": {"x": (1, 2)},
        "machine": where,
    }
    return LatencyReport(samples_s, **{**fields, **changes})  # type: ignore[arg-type]


def test_percentiles_are_samples_by_nearest_rank() -> None:
    thousand = [float(k) for k in range(1, 1001)]
    assert [nearest_rank(thousand, p) for p in (0, 50, 90, 99, 99.9, 100)] == [1, 500, 900, 990, 999, 1000]
    assert nearest_rank(range(1, 2001), 99.9) == 1998, "not one more for rounding"
    assert nearest_rank([3.0, 1.0, 2.0], 50) == 2.0
    assert nearest_rank([7.0], 99.9) == 7.0
    assert report_of(tuple(thousand)).jitter_s == 500


def test_notes_say_what_the_figures_cannot() -> None:
    assert report_of((1.0,) * 1000).notes == ()
    assert len(report_of((1.0,) * 999).notes) == 1
    few = report_of((1.0,) * 99).notes
    assert "p99 of 99 runs is the slowest run" in few[0] and "p99.9 of 99" in few[1]
    busy = Machine("cpu", "x86_64", 2, (), 1, "Linux", "3.11", 4.0)
    assert "busy" in report_of((1.0,) * 1000, machine=busy).notes[0]


def test_summary_and_report_survive_json() -> None:
    report = report_of((3.0, 1.0, 2.0))
    text = json.dumps(schema.encode(report), allow_nan=False)
    assert schema.decode(LatencyReport, json.loads(text), error=CorruptError, where="report") == report
    data = json.loads(json.dumps(summary(report), allow_nan=False))
    assert (data["runs"], data["p50_s"], data["p99_9_s"], data["min_s"]) == (3, 2.0, 3.0, 1.0)
    assert data["stages"]["network"]["p90_s"] == 3.0
    assert data["machine"]["cpu"] == "cpu" and len(data["notes"]) == 2
