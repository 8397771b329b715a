"""The stages joined, over a clock and a model that the tests hold in their hands."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from made_packets import EPOCH_S, noise, packet
from numpy.typing import NDArray

from quake.alerts import Alert
from quake.artifact import read_spec
from streamer.composition import Scorer, compose, load_scorer, model_path
from streamer.config import Config, resolve
from streamer.grid import Grid
from streamer.hooks import Hooks
from streamer.inventory import Stations
from streamer.outbox import Outbox, Saved
from streamer.pipeline import RETRY_S, Pipeline
from streamer.source.resume import ResumePoint
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
    """Says 0.1 of every window, or ``probability``, and takes ``seconds`` for a batch."""

    clock: Clock
    seconds: float
    probability: float = 0.1
    spec = read_spec(model_path(resolve({"source": [{"servers": ["seedlink://x"], "select": ["*.*"]}]}, Path("x"))))
    sha256, device = 64 * "0", "cpu"

    def transform(self, windows: NDArray[np.float32]) -> NDArray[np.float32]:
        return windows

    def score(self, spectrograms: NDArray[np.float32]) -> NDArray[np.float32]:
        self.clock.now_ns += int(self.seconds * NS)
        return np.full((len(spectrograms), 2), (1 - self.probability, self.probability), np.float32)

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
    refusals: list[Refused] = field(default_factory=list)
    samples: list[tuple[str, Unused, int]] = field(default_factory=list)
    packets: list[Packet] = field(default_factory=list)
    alerts: list[tuple[str, str]] = field(default_factory=list)
    stages: dict[str, float] = field(default_factory=dict)
    ticks: int = 0

    def tick(self) -> None:
        self.ticks += 1

    def stage(self, name: str, seconds: float) -> None:
        self.stages[name] = self.stages.get(name, 0.0) + seconds

    def committing(self, alerts: list[Alert]) -> None:
        self.alerts += [("committing", a.id) for a in alerts]

    def packet(self, packet: Packet) -> None:
        self.packets.append(packet)

    def refused(self, refused: Refused) -> None:
        self.refusals.append(refused)

    def samples_unused(self, channel: str, reason: Unused, count: int) -> None:
        self.samples.append((channel, reason, count))

    def overload(self, dropping: bool) -> None:
        self.dropping.append(dropping)

    def scored(self, scores: list[Score]) -> None:
        self.decided += [(s.window.k, "scored") for s in scores]

    def windows_unused(self, unscored: Unscored) -> None:
        self.decided += [(k, str(unscored.reason)) for k in range(unscored.first, unscored.last + 1)]

    def committed(self, alerts: list[Alert]) -> None:
        self.commits += 1
        self.alerts += [("committed", a.id) for a in alerts]

    def commit_failed(self, cause: str) -> None:
        self.failures.append(cause)


def settings(tmp_path: Path, **changes: object) -> Config:
    content = {"source": [{"servers": ["seedlink://x"], "select": ["*.*"]}], **changes}
    return resolve(content, tmp_path / "quake.toml")


def pipeline(
    config: Config,
    feed: Feed,
    clock: Clock,
    seconds: float,
    notes: Notes,
    outbox: Outbox,
    probability: float = 0.1,
    wake: Callable[[], None] = lambda: None,
) -> Pipeline:
    model = SlowModel(clock, seconds, probability)
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
        wake,
        may_drop=config.mode == "live",
    )
    made.clock_ns = made.tick_ns = clock
    return made


def recording(minutes: int, samples: int = SAMPLES) -> list[Packet]:
    count = minutes * 60 * 100 // samples
    return [
        packet("Z", n * samples, noise(samples, n), cursor=Cursor("seedlink://x", "XX_ABC", n + 1))
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


def test_an_outages_lag_is_first_seen_with_the_first_decision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Filling the rings takes longer than the patience: no lag before it, and an hour's after it, is no falling behind."""
    monkeypatch.setattr("streamer.composition.QUEUE_PACKETS", 8)
    clock = Clock()
    feed = Feed(clock, recording(2), 8)
    clock.now_ns = feed.packets[-1].end_ns
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        made = pipeline(settings(tmp_path, mode="live"), feed, clock, 0.0, Notes(), outbox)
        assert feed.queued == 8
        assert made._overloaded() is False
        clock.now_ns += 11 * NS
        made._stations["a station"] = made._p.station("a station", frozenset("Z"), None)
        monkeypatch.setattr(made, "_lag_ns", lambda station: 3600 * NS)
        assert made._overloaded() is False
        clock.now_ns += 11 * NS
        assert made._overloaded() is True, "it did not gain on it"


def test_what_a_batch_costs_does_not_grow_with_the_stations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a queue that is all but empty nobody asks how far behind each is, and how far each has decided is known."""
    clock, looks = Clock(), list[str]()
    feed = Feed(clock, recording(1), 99)
    clock.now_ns = feed.packets[-1].end_ns
    end_ns = clock.now_ns + NS
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        made = pipeline(settings(tmp_path, mode="live"), feed, clock, 0.0, Notes(), outbox)
        made.run(lambda: clock.now_ns > end_ns)
        decided_ns = {subject: trigger.decided_ns for subject, trigger in made._triggers.items()}
        assert made._decided_ns == decided_ns != {}
        assert made._p.coincidence is not None
        assert made._p.coincidence.state.reached_ns == max(decided_ns.values())
        monkeypatch.setattr("streamer.trigger.Trigger.decided_ns", property(lambda trigger: looks.append("decided")))
        monkeypatch.setattr(made, "_lag_ns", lambda station: looks.append("lag"))
        made._associate(hold=True)
        assert made._overloaded() is False
    assert looks == []


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, notes, ticks, pauses = Clock(), Notes(), list[int](), list[float]()
    feed = Feed(clock, recording(2), 8)
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        made = pipeline(settings(tmp_path), feed, clock, 0.0, notes, outbox)
        real, faults = outbox.commit, iter([True, True])

        def commit(progress: object) -> int:
            ticks.append(notes.ticks)
            if next(faults, False):
                raise sqlite3.OperationalError("database or disk is full")
            return real(progress)  # type: ignore[arg-type]

        monkeypatch.setattr(outbox, "commit", commit)
        monkeypatch.setattr("time.sleep", pauses.append)
        end_ns = feed.packets[-1].end_ns + NS
        made.run(lambda: clock.now_ns > end_ns)
        assert notes.failures == ["database or disk is full"] * 2
        assert outbox.load("x").resume["seedlink://x", "XX_ABC"].sequence is not None
    assert {reason for _, reason in notes.decided} == {"scored"}
    assert ticks[:3] == [ticks[0], ticks[0] + 1, ticks[0] + 2], "to wait for the disk is no hanging"
    assert pauses == [RETRY_S] * 2
    (told,) = [r.message for r in caplog.records if "cannot be written" in r.message]
    assert told.endswith("cannot be written: database or disk is full; alerts wait, nothing is read")


def test_a_stop_does_not_wait_for_an_outbox_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, notes = Clock(), Notes()
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        made = pipeline(settings(tmp_path), Feed(clock, recording(1), 8), clock, 0.0, notes, outbox)

        def commit(progress: object) -> int:
            raise sqlite3.OperationalError("database or disk is full")

        monkeypatch.setattr(outbox, "commit", commit)
        end_ns = clock.now_ns + 10 * NS
        monkeypatch.setattr("time.sleep", lambda s: setattr(clock, "now_ns", clock.now_ns + NS))
        with pytest.raises(sqlite3.OperationalError, match="full"):
            made.run(lambda: clock.now_ns > end_ns)
    assert len(notes.failures) > 3


def test_an_alert_is_committed_and_the_publisher_woken_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clock, notes, woken = Clock(), Notes(), list[tuple[int, int]]()
    feed = Feed(clock, recording(1), 99)
    clock.now_ns = begin_ns = feed.packets[-1].end_ns
    config = settings(tmp_path, worker={"batch_size": 1})
    with Outbox(tmp_path / "outbox.sqlite") as outbox:

        def wake() -> None:
            woken.append((clock.now_ns, outbox.backlog()[0]))

        made = pipeline(config, feed, clock, 0.0, notes, outbox, probability=0.95, wake=wake)
        made.run(lambda: clock.now_ns > begin_ns + 5 * NS)
        (unsent,) = outbox.unsent(9)
    ident = Alert.model_validate_json(unsent.body).id
    assert woken == [(begin_ns, 1)], "not with the commit that is due within a second, and for nothing else"
    assert notes.alerts == [("committing", ident), ("committed", ident)]
    (told,) = [r.message for r in caplog.records if r.message.startswith("alert ")]
    assert "XX_ABC" in told
    assert {"ring", "cutter", "decide", "commit"} <= set(notes.stages)
    assert all(0 < seconds < 60 for seconds in notes.stages.values())


def test_without_coincidence_states_and_resume_points_are_committed_all_the_same(tmp_path: Path) -> None:
    clock, packets = Clock(), recording(1)
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        made = pipeline(settings(tmp_path, coincidence=False), Feed(clock, packets, 8), clock, 0.0, Notes(), outbox)
        made.run(lambda: clock.now_ns > packets[-1].end_ns + NS)
        saved = outbox._saved()
    assert saved.coincidence is None
    assert len(saved.triggers) == len(saved.resume) == 1


def test_what_is_committed_is_of_one_moment(tmp_path: Path) -> None:
    """The resume point lies at the packet before the first that a window still to be decided needs."""
    clock, notes = Clock(), Notes()
    feed = Feed(clock, recording(2, samples=50), 8)
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        made = pipeline(settings(tmp_path), feed, clock, 0.0, notes, outbox)
        end_ns = feed.packets[-1].end_ns + NS
        made.run(lambda: clock.now_ns > end_ns)
        saved = outbox._saved()
    (subject,) = saved.triggers
    first_k = max(k for k, _ in notes.decided) + 1
    assert saved.triggers[subject].last_k == first_k - 1
    needed_ns = made._p.alerting.grid.start_ns(first_k) - made._stations[subject].reach_ns
    assert (EPOCH_S + 90) * NS < needed_ns < clock.now_ns
    last = max(n for n, p in enumerate(feed.packets) if p.end_ns < needed_ns)
    point = ResumePoint(last + 1, feed.packets[last + 1].start_ns, feed.packets[last].start_ns)
    assert saved.resume == {("seedlink://x", "XX_ABC"): point}
    assert saved.coincidence is not None


def test_the_shipped_model_fits_the_defaults(tmp_path: Path) -> None:
    scorer = load_scorer(settings(tmp_path))
    assert scorer.earthquake == 1
    assert scorer.thresholds.off < scorer.thresholds.on


@dataclass
class Once:
    """All that a server sends, at once."""

    clock: Clock
    items: list[Packet | Refused | Subscribed]
    queued = 0

    def take(self, limit: int, timeout_s: float) -> list[Packet | Refused | Subscribed]:
        taken, self.items = self.items, []
        self.clock.now_ns += NS // 10
        return taken

    def expected(self) -> Mapping[str, frozenset[str]]:
        return {}


def committed(tmp_path: Path, clock: Clock, notes: Notes, *items: Packet | Refused | Subscribed) -> Saved:
    with Outbox(tmp_path / "outbox.sqlite") as outbox:
        feed = Once(clock, list(items))
        made = pipeline(settings(tmp_path), feed, clock, 0.0, notes, outbox)  # type: ignore[arg-type]
        end_ns = clock.now_ns + 3 * NS
        made.run(lambda: clock.now_ns > end_ns)
        return outbox.load("x")


def test_a_refused_record_counts_as_received_and_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its number must be asked for no more; one from a file has none."""
    notes, place = Notes(), Cursor("seedlink://x", "XX_ABC", 8)
    refused = [Refused(Unused.CORRUPT, f"XX_ABC: bad {n}", c, 512) for n, c in enumerate([place, place, None])]
    saved = committed(tmp_path, Clock(), notes, *refused)
    assert saved.resume == {("seedlink://x", "XX_ABC"): ResumePoint(8, None, None)}
    assert notes.refusals == refused
    told = [r.message for r in caplog.records if "refused" in r.message]
    assert told == ["record refused: XX_ABC: bad 0", "record refused: XX_ABC: bad 2"], (
        "one line for each station and reason"
    )


def test_a_packet_of_no_use_holds_no_resume_point_back(tmp_path: Path) -> None:
    """A channel that stands in no window, and one of the future: nobody will decide them."""
    clock = Clock()
    items = [
        packet("U", 0, noise(100), cursor=Cursor("seedlink://x", "XX_ABC", 1)),
        packet("Z", 100 * 3600, noise(100), cursor=Cursor("seedlink://x", "XX_ABC", 2)),
    ]
    items[1] = replace(items[1], received_ns=clock.now_ns)
    notes = Notes()
    saved = committed(tmp_path, clock, notes, *items)
    assert notes.packets == items, "counted as received all the same"
    assert saved.resume["seedlink://x", "XX_ABC"].sequence == 2


def test_samples_that_were_not_used_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    committed(
        tmp_path, Clock(), notes, packet("U", 0, noise(100)), packet("Z", 0, noise(50)), packet("Z", 0, noise(50))
    )
    assert [(c[-1], r, n) for c, r, n in notes.samples] == [("U", Unused.COMPONENT, 100), ("Z", Unused.OVERLAP, 50)]
    assert ["100 samples from 2023-11-14T22:13:20" in r.message for r in caplog.records if "not used" in r.message] == [
        True
    ]
