"""The stages joined, over a clock and a model that the tests hold in their hands."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from made_packets import EPOCH_S, noise, packet
from numpy.typing import NDArray

from quake.artifact import read_spec
from streamer.composition import Scorer, compose, load_scorer, model_path
from streamer.config import Config, resolve
from streamer.grid import Grid
from streamer.hooks import Hooks
from streamer.inventory import Stations
from streamer.outbox import Outbox, Saved
from streamer.pipeline import Pipeline
from streamer.stages import NS, Cursor, Packet, Refused, Score, Subscribed, Unscored, Unused
from streamer.trigger import ModelName, Thresholds

SAMPLES = 400


@dataclass
class Clock:
    now_ns: int = EPOCH_S * NS

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class SlowModel:
    """Says 0.1 of every window, and takes ``seconds`` for a batch."""

    clock: Clock
    seconds: float
    spec = read_spec(model_path(resolve({"source": [{"servers": ["seedlink://x"], "select": ["*.*"]}]}, Path("x"))))
    sha256, device = 64 * "0", "cpu"

    def transform(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        return windows

    def score(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]:
        self.clock.now_ns += int(self.seconds * NS)
        return np.full((len(spectrograms), 2), (0.9, 0.1), np.float32)

    def warm_up(self, batch_sizes: Iterable[int]) -> None: ...


@dataclass
class Feed:
    """Packets that a server has by the time the clock shows; at most ``queue`` of them wait here."""

    clock: Clock
    packets: list[Packet]
    queue: int
    taken: int = 0

    @property
    def _there(self) -> int:
        return sum(p.end_ns <= self.clock.now_ns for p in self.packets[self.taken :])

    @property
    def queued(self) -> int:
        return min(self._there, self.queue)

    def take(self, limit: int, timeout_s: float) -> list[Packet | Refused | Subscribed]:
        count = min(limit, self.queued)
        if not count:
            self.clock.now_ns += max(int(timeout_s * NS), NS // 100)
        self.taken += count
        return list(self.packets[self.taken - count : self.taken])

    def expected(self) -> Mapping[str, frozenset[str]]:
        return {p.subject: frozenset("Z") for p in self.packets}


@dataclass
class Notes(Hooks):
    dropping: list[bool] = field(default_factory=list)
    decided: list[tuple[int, str]] = field(default_factory=list)
    commits: int = 0
    failures: list[str] = field(default_factory=list)

    def overload(self, dropping: bool) -> None:
        self.dropping.append(dropping)

    def scored(self, scores: list[Score]) -> None:
        self.decided += [(s.window.k, "scored") for s in scores]

    def windows_unused(self, unscored: Unscored) -> None:
        self.decided += [(k, str(unscored.reason)) for k in range(unscored.first, unscored.last + 1)]

    def committed(self, alerts: list[object]) -> None:  # type: ignore[override]
        self.commits += 1

    def commit_failed(self, cause: str) -> None:
        self.failures.append(cause)


def settings(tmp_path: Path, **changes: object) -> Config:
    content = {"source": [{"servers": ["seedlink://x"], "select": ["*.*"]}], **changes}
    return resolve(content, tmp_path / "quake.toml")


def pipeline(config: Config, feed: Feed, clock: Clock, seconds: float, notes: Notes, outbox: Outbox) -> Pipeline:
    model = SlowModel(clock, seconds)
    grid = Grid.of(model.spec.sampling_rate_hz, model.spec.window_samples, 1.0)
    limits = Thresholds(on=0.9, off=0.5, in_a_row=2, release=3, dead_k=15, longest_k=300)
    scorer = Scorer(model, grid, ModelName("m", 0), limits, 1)  # type: ignore[arg-type]
    made = compose(
        config,
        scorer,
        Stations({}, {}),
        feed,
        outbox,
        Saved({}, None, {}),
        notes,
        lambda: None,
        may_drop=config.mode == "live",
    )
    made.clock_ns = made.tick_ns = clock
    return made


def recording(minutes: int) -> list[Packet]:
    count = minutes * 60 * 100 // SAMPLES
    return [
        packet("Z", n * SAMPLES, noise(SAMPLES, n), cursor=Cursor("seedlink://x", "XX_ABC", n + 1))
        for n in range(count)
    ]


def test_overload_drops_the_oldest_windows_and_then_keeps_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch takes as long as four times its data; after ten minutes the model is quick."""
    monkeypatch.setattr("streamer.composition.QUEUE_PACKETS", 8)
    clock, notes = Clock(), Notes()
    feed = Feed(clock, recording(12), 8)
    config = settings(tmp_path, worker={"batch_size": 4, "max_behind_s": 20.0})
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        made = pipeline(config, feed, clock, 16.0, notes, outbox)
        end_ns = feed.packets[-1].end_ns + 300 * NS
        made.run(lambda: clock.now_ns > end_ns)
    assert notes.dropping[0] is True
    assert notes.dropping[-1] is False
    numbers = [k for k, _ in notes.decided]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "every window was decided once, in order"
    reasons = dict(notes.decided)
    dropped = [k for k, reason in reasons.items() if reason == Unused.OVERLOAD]
    assert dropped
    assert reasons[numbers[-1]] == "scored"
    newest_dropped = max(dropped)
    assert any(k > newest_dropped and reason == "scored" for k, reason in reasons.items())


def test_catching_up_drops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes of backlog, scored ten times faster than it was recorded."""
    monkeypatch.setattr("streamer.composition.QUEUE_PACKETS", 8)
    clock, notes = Clock(), Notes()
    feed = Feed(clock, recording(10), 8)
    clock.now_ns = feed.packets[-1].end_ns
    end_ns = clock.now_ns + 300 * NS
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        config = settings(tmp_path, worker={"batch_size": 4, "max_behind_s": 20.0})
        pipeline(config, feed, clock, 0.4, notes, outbox).run(lambda: clock.now_ns > end_ns)
    assert {reason for _, reason in notes.decided} == {"scored"}
    assert len(notes.decided) > 500
    assert notes.dropping == []


def test_a_first_packet_is_committed_at_once(tmp_path: Path) -> None:
    """From then on a restart asks for what follows it, never again for "from now on"."""
    clock, notes = Clock(), Notes()
    feed = Feed(clock, recording(1)[:1], 8)
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        made = pipeline(settings(tmp_path), feed, clock, 0.0, notes, outbox)
        stop_ns = feed.packets[0].end_ns + NS // 5
        made.run(lambda: clock.now_ns > stop_ns)
        point = outbox.load("x").resume["seedlink://x", "XX_ABC"]
    assert point.sequence == 0
    assert notes.commits >= 1


def test_an_outbox_that_cannot_be_written_stops_the_reading_not_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, notes = Clock(), Notes()
    feed = Feed(clock, recording(2), 8)
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        made = pipeline(settings(tmp_path), feed, clock, 0.0, notes, outbox)
        real, faults = outbox.commit, iter([True, True])

        def commit(progress: object) -> int:
            if next(faults, False):
                raise sqlite3.OperationalError("database or disk is full")
            return real(progress)  # type: ignore[arg-type]

        monkeypatch.setattr(outbox, "commit", commit)
        monkeypatch.setattr("streamer.pipeline.RETRY_S", 0.0)
        end_ns = feed.packets[-1].end_ns + NS
        made.run(lambda: clock.now_ns > end_ns)
        assert notes.failures == ["database or disk is full"] * 2
        assert outbox.load("x").resume["seedlink://x", "XX_ABC"].sequence is not None
    assert {reason for _, reason in notes.decided} == {"scored"}


def test_the_shipped_model_fits_the_defaults(tmp_path: Path) -> None:
    scorer = load_scorer(settings(tmp_path))
    assert scorer.earthquake == 1
    assert scorer.thresholds.off < scorer.thresholds.on
