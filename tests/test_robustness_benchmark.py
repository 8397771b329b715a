"""The way through the daemon is the daemon's, nothing is heard before it can be, and losses are counted rightly."""

from __future__ import annotations

import json
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from made_detector import LEAD, WINDOW, Louder, event, louder, noise

from benchmarks import perturbations as made
from benchmarks import robustness as benchmark
from benchmarks.daemon_windows import POLICY, Heard, reach_s, through_daemon
from benchmarks.perturbations import Perturbation
from benchmarks.tables import Estimate
from quake.artifact import CompiledModel
from quake.data.offset import without_offset
from quake.data.seisbench import DataError
from trainer.data.record import Record, Samples
from trainer.evaluation.alarms import Rule
from trainer.evaluation.scoring import DetectorScorer, log_odds

PLAIN = Perturbation("as it is", made.as_it_is)
RULE = Rule(log_odds(0.7), log_odds(0.5))
ZOO = Path(__file__).parents[1] / "models" / "zoo" / "detector.pt"
WAIT_S = POLICY.max_wait_ns / 1e9
BRIDGED = POLICY.bridge_ns * 100 // 10**9


def heard(change: Perturbation, record: Record, window: int = WINDOW) -> Heard:
    return through_daemon(change, record, window, 1.0)


def rate(hz: int) -> Perturbation:
    return Perturbation(f"{hz} Hz", partial(made.resampled, hz), rate_hz=hz, read_ahead_s=made.read_ahead_s(hz))


def test_windows_are_the_records_without_their_mean() -> None:
    record = noise(1)
    found = heard(PLAIN, record)
    assert found.ends.tolist() == list(range(LEAD - 700, 12001, 100))
    assert found.decided_s == pytest.approx((found.ends - 1) / 100)
    for end, window in zip(found.ends, found.windows, strict=True):
        expected = record.samples[:, end - WINDOW : end]
        assert window is not None
        assert window == pytest.approx(without_offset(expected), abs=1e-6)


def test_an_event_is_followed_to_ten_seconds_after_p() -> None:
    record = event(1, p_s=20.5)
    after_s = (heard(PLAIN, record).ends - record.p) / 100
    assert 10 < after_s[-1] <= 11


@pytest.mark.parametrize(("hz", "late_s"), [(50, 0.4), (80, 0.25), (125, 0.2), (200, 0.2)])
def test_another_rate_comes_back_to_the_models_and_late(hz: int, late_s: float) -> None:
    record, change = noise(1), rate(hz)
    seconds = np.arange(12000) / 100
    record.samples[:] = np.sin(2 * np.pi * 3 * seconds)
    found = heard(change, record)
    assert reach_s(change) == pytest.approx(late_s)  # ten periods of the slower rate, twice
    assert found.newest_s == pytest.approx((found.ends - 1) / 100 + late_s)
    # The filter of the last one may reach beyond the record's end, which is then waited for, and bridged.
    assert found.decided_s[:-1] == pytest.approx(found.newest_s[:-1])
    for end, window in list(zip(found.ends, found.windows, strict=True))[:-1]:
        assert window is not None
        wave = record.samples[0, end - WINDOW : end]
        assert window[0] == pytest.approx(wave - wave.mean(), abs=0.02)


@pytest.mark.parametrize("hz", [50, 80, 125, 200])
def test_nothing_is_known_before_it_was_taken(hz: int) -> None:
    record, cut = noise(1), 9000
    other = noise(1)
    other.samples[:, cut:] *= 100
    before, after = heard(rate(hz), record), heard(rate(hz), other)
    same = [np.array_equal(one, two) for one, two in zip(before.windows, after.windows, strict=True)]  # type: ignore[arg-type]
    first = same.index(False)
    assert before.decided_s[first] >= cut / 100
    assert before.ends[first] <= cut + 100  # and a second later it is


def test_windows_that_lack_too_much_are_not_scored_and_those_after_a_gap_wait() -> None:
    change = Perturbation("gap", partial(made.gap, 3.0, "before P", None))
    record = event(3, p_s=40.0)
    samples = change.apply(record, np.random.default_rng(_seed(change, record)))
    places = np.flatnonzero(np.isnan(samples[0]))
    found = heard(change, record)
    for end, window in zip(found.ends, found.windows, strict=True):
        lacks = int(((places >= end - WINDOW) & (places < end)).sum())
        assert (window is None) == (lacks > BRIDGED or end - 1 in places)
    after = np.flatnonzero(found.ends - WINDOW > places[-1])[0]
    assert found.decided_s[after] > (found.ends[after] - 100) / 100 + WAIT_S
    assert found.decided_s[after] < found.ends[after] / 100 + WAIT_S + 1


def test_a_short_gap_is_bridged_once_it_is_waited_for_no_longer() -> None:
    record = event(3, p_s=40.0)
    plain, found = heard(PLAIN, record), heard(Perturbation("gap", partial(made.gap, 0.5, "before P", None)), record)
    assert sum(window is None for window in found.windows) <= 1  # that whose end was lost
    pairs = enumerate(zip(found.windows, plain.windows, strict=True))
    bridged = [i for i, (one, other) in pairs if one is not None and not np.array_equal(one, other)]  # type: ignore[arg-type]
    assert len(bridged) >= WINDOW // 100
    assert (found.decided_s[bridged] > found.ends[bridged] / 100 + WAIT_S).all()
    assert found.newest_s == pytest.approx(plain.newest_s)


def test_a_component_with_a_gap_is_left_out_and_waited_for() -> None:
    change = Perturbation("gap", partial(made.gap, 3.0, "before P", 1))
    found = heard(change, event(3, p_s=40.0))
    without = [i for i, window in enumerate(found.windows) if window is not None and not window[1].any()]
    assert len(without) >= (WINDOW - BRIDGED) // 100
    for index in without:
        window = found.windows[index]
        assert window is not None
        assert window[0].any()
        assert window[2].any()
        assert found.decided_s[index] > found.ends[index] / 100 + WAIT_S


def test_horizontals_that_never_come_are_not_waited_for() -> None:
    found = heard(Perturbation("z", made.vertical_only), noise(1))
    assert found.decided_s == pytest.approx((found.ends - 1) / 100)
    assert all(window is not None and window[0].any() and not window[1:].any() for window in found.windows)


def test_a_clock_half_a_sample_off_moves_the_windows_by_that() -> None:
    record = noise(1)
    record.samples[:] = np.sin(2 * np.pi * 3 * np.arange(12000) / 100)
    late = Perturbation("late", made.half_a_sample_later, late_s=0.005, read_ahead_s=0.1)
    shift = []  # by how much later the windows are than they say, seconds
    for end, window in list(zip(*_whole(heard(late, record)), strict=True))[:20]:
        at = np.arange(end - WINDOW, end) / 100
        phases = [window[0] @ np.sin(2 * np.pi * 3 * at), window[0] @ np.cos(2 * np.pi * 3 * at)]
        shift.append(np.arctan2(phases[1], phases[0]) / (2 * np.pi * 3))
    assert shift == pytest.approx([-0.005] * 20, abs=5e-4)  # the daemon rounds half a sample up


def test_a_lead_that_holds_no_window_is_refused() -> None:
    with pytest.raises(DataError, match="noise1: a lead of 60 s is too short"):
        heard(PLAIN, noise(1), 6000)


def test_scores_of_recordings_as_they_are_are_those_of_the_evaluation() -> None:
    detector = CompiledModel.load(ZOO, "cpu", threads=1)
    record = event(1)
    curve = DetectorScorer(detector)(record.samples, record.lead)
    found = heard(PLAIN, record, detector.spec.window_samples)
    scores = benchmark.Memory(detector)(_whole(found)[1])
    assert scores == pytest.approx(curve.scores[: len(scores)], abs=1e-3)
    assert found.decided_s == pytest.approx(curve.times_s[: len(scores)])


def test_a_window_is_scored_once() -> None:
    model = Louder()
    memory = benchmark.Memory(cast(CompiledModel, model))
    windows = [np.random.default_rng(seed).standard_normal((3, WINDOW)).astype(np.float32) for seed in (1, 2, 1)]
    first = memory(windows)
    assert model.windows == 16
    assert first[0] == first[2] != first[1]
    assert np.array_equal(memory(windows[::-1]), first[::-1])
    assert model.windows == 16
    assert memory([]).shape == (0,)


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return [*(event(seed, source="ab"[seed % 2]) for seed in range(6)), *(noise(seed, 120.0) for seed in range(10, 13))]


def outcome(change: Perturbation, records: list[Record]) -> benchmark.Outcome:
    return benchmark.outcome(benchmark.Memory(louder()), change, records, 1.0, RULE)


def test_what_a_perturbation_costs(records: list[Record]) -> None:
    base = outcome(PLAIN, records)
    threshold = benchmark.fixed_threshold(base.evidence)
    assert base.worth.recall == 1
    assert base.scored == 1
    assert base.evidence.hours.sum() == pytest.approx((3 * 120 + 6 * 18) / 3600)
    louder_ = outcome(Perturbation("gain", partial(made.scaled, 1e6)), records)
    assert benchmark.row_of("gain", louder_, base, threshold)[1:3] == (1.0, Estimate(0.0, 0.0, 0.0))
    half = Perturbation("quiet b", lambda r, rng: np.where(r.source == "b", 0, r.samples).astype(np.float32))
    row = benchmark.row_of("half", outcome(half, records), base, threshold)
    assert row[1] == 0.5
    assert row[2] == Estimate(50.0, 50.0, 50.0)
    assert row[4] == 0.5
    assert cast(float, row[6]) < 1  # windows without data are not scored
    assert row[-1] == "more than 5 points"


def test_false_alarms_are_counted_at_the_fixed_threshold(records: list[Record]) -> None:
    base = outcome(PLAIN, records)
    bursts = Perturbation("bursts", lambda r, rng: r.samples if r.is_event else _with_bursts(r))
    row = benchmark.row_of("bursts", outcome(bursts, records), base, benchmark.fixed_threshold(base.evidence))
    alarms = cast(Estimate, row[3])
    assert alarms.value * base.evidence.hours.sum() == pytest.approx(3)
    assert cast(Estimate, row[5]).value * base.worth.hours == pytest.approx(3, abs=0.01)


def test_scores_that_are_no_numbers_are_counted_and_are_no_alarms(records: list[Record]) -> None:
    class Broken(Louder):
        def predict(self, windows: Samples) -> Samples:
            return np.where(np.abs(windows).max(axis=(1, 2))[:, None] > 20, np.nan, super().predict(windows))

    memory = benchmark.Memory(cast(CompiledModel, Broken()))
    found = benchmark.outcome(memory, PLAIN, records, 1.0, RULE)
    assert found.not_finite > 6
    assert found.worth.recall < 1
    assert np.isfinite(found.evidence.best).all()


def test_behind_another_earthquake_no_silence_is_asked(records: list[Record]) -> None:
    def rising(record: Record, rng: np.random.Generator) -> Samples:
        """Events louder from second to second, so that an alarm always stands."""
        at = np.arange(record.samples.shape[1])
        wave = (np.sin(at) * np.ones((3, 1)) * 10 ** (at / 300 - 25)).astype(np.float32)
        return wave if record.is_event else record.samples

    asked, not_asked = (outcome(Perturbation("loud", rising, second=second), records) for second in (False, True))
    assert benchmark.lost(not_asked.evidence, asked.evidence, 0.5).value == 100
    row = benchmark.row_of("loud", not_asked, not_asked, 0.5, second=True)
    assert np.isnan([cast(float, row[4]), cast(Estimate, row[3]).value]).all()


def test_it_runs_and_names_what_it_does_not_know(
    records: list[Record], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "read", lambda data, split: tuple(records))
    monkeypatch.setattr(CompiledModel, "load", lambda path, device, threads: louder())
    path = tmp_path / "x.json"
    monkeypatch.setattr(sys, "argv", ["x", "louder.pt", "--records", "2", "--only", "polarity", "--json", str(path)])
    benchmark.main()
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert [row["recordings"] for row in content["rows"]] == [
        "as recorded",
        "polarity reversed",
        "polarity of one component reversed",
    ]
    assert all(row["not finite"] == 0 for row in content["rows"])
    assert "| polarity reversed | 1.000 | 0.000 [0.000, 0.000] |" in capsys.readouterr().out
    with pytest.raises(DataError, match="no perturbation is called fog: gain x 1e-06"):
        benchmark.wanted(made.perturbations(records), ["fog"])


def _whole(found: Heard) -> tuple[list[int], list[Samples]]:
    pairs = [(int(e), w) for e, w in zip(found.ends, found.windows, strict=True) if w is not None]
    return [end for end, _ in pairs], [window for _, window in pairs]


def _seed(change: Perturbation, record: Record) -> int:
    return zlib.crc32(f"{change.name} {record.name}".encode())


def _with_bursts(record: Record) -> Samples:
    samples = record.samples.copy()
    samples[:, LEAD + 3000 : LEAD + 3200] *= 100
    return samples
