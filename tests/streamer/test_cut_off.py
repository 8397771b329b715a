"""Another model or hop while detections and an event are open: each of them is closed, once, under its own id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_scorer import SERVERS, loud_scorer
from test_publisher import publishing, until
from test_publisher import settings as publish_settings
from valkey_server import Valkey

from quake.alerts import Alert, Keys, Kind, Status
from streamer.association.notes import Note, Notes
from streamer.composition import Scorer, compose
from streamer.config import resolve
from streamer.file_source import FileSource
from streamer.grid import Grid
from streamer.hooks import Hooks
from streamer.inventory import Stations
from streamer.outbox import Outbox, OutboxError
from streamer.stages import NS, Score, Window
from streamer.trigger import Thresholds

BEGIN_S = 1_700_000_000
PLACES = {f"XX_{name}": (48.0, 12.0 + n / 100) for n, name in enumerate("ABC")}
SAMPLES = np.ones((3, 2080), np.float32)


def scorer(hop_s: float) -> Scorer:
    limits = Thresholds(on=0.9, off=0.5, in_a_row=2, release=3, dead_k=round(15 / hop_s), longest_k=300)
    return loud_scorer(1.0, 3.0, limits, Grid.of(100.0, 2080, hop_s))


def live(
    outbox: Outbox, hop_s: float, loud: Sequence[str], begin_s: float = 0.0, most: int = 0, *, with_notes: bool = False
) -> float:
    """One life of the daemon: windows of three stations, sure of an earthquake at those named; when the next one begins."""
    rules = {"min_stations": 2, "hold_s": 0.0}
    config = resolve({**SERVERS, "coincidence": rules, "trigger": {"most_a_minute": most}}, Path("quake.toml"))
    made, stations, source = scorer(hop_s), Stations({}, PLACES), FileSource.of([])
    saved, notes = outbox.load(made.fingerprint), Notes(made.identity) if with_notes else None
    pipeline = compose(
        config, made, stations, source, outbox, saved, Hooks(), lambda: None, may_drop=False, notes=notes
    )
    first = round((BEGIN_S + begin_s) / hop_s + 0.49)
    for k, names in enumerate(loud, first):
        for name in "ABC":
            window = Window(f"FDSN:XX_{name}__H_H", k, SAMPLES, "ZNE", True, 0)
            pipeline.take([Score(window, 0.99 if name in names else 0.1, made.grid.start_ns(k) + 19 * NS)])
    pipeline.settle()
    return (first + len(loud)) * hop_s - BEGIN_S


def told(outbox: Outbox) -> list[tuple[str, int, Status]]:
    return [(one.id, one.revision, one.status) for one in outbox.alerts()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


def test_what_is_open_is_closed_under_its_id_at_the_end_of_its_last_window(path: Path) -> None:
    with Outbox(path) as outbox:
        live(outbox, 1.0, 4 * ["AB"])
        before = list(outbox.alerts())
        saved = outbox.load(scorer(0.5).fingerprint)
        assert (saved.triggers, saved.coincidence) == ({}, None)
        closings = list(outbox.alerts())[len(before) :]
    newest = {one.id: one for one in before}
    end_ns = scorer(1.0).grid.end_ns(BEGIN_S + 3)
    assert Counter(one.kind for one in closings) == {Kind.DETECTION: 2, Kind.EVENT: 1}
    for one in closings:
        was = newest.pop(one.id)
        assert (one.status, one.revision, one.off_time) == (Status.CLOSED, was.revision + 1, end_ns)
        same = {"mode", "kind", "onset", "on_time", "model", "probability", "complete", "stations"}
        assert one.model_dump(include=same) == was.model_dump(include=same)
    assert not newest
    assert [len(one.trace) for one in closings if one.kind is Kind.DETECTION] == [4, 4]


def test_what_is_not_open_or_was_never_told_stays_as_it_is(path: Path) -> None:
    with Outbox(path) as outbox:
        live(outbox, 1.0, [*4 * ["A"], *5 * [""], *4 * ["BC"]], most=1)
        detections = [one for one in outbox.alerts() if one.kind is Kind.DETECTION]
        assert [one.status for one in detections] == [Status.OPEN, Status.CLOSED], "two are held"
        outbox.load(scorer(0.5).fingerprint)
        count = Counter(one.id for one in outbox.alerts() if one.status is Status.CLOSED)
        assert set(count.values()) == {1}
        assert set(count) == {one.id for one in outbox.alerts()}


def test_a_crash_in_the_midst_of_it_changes_nothing(path: Path) -> None:
    with Outbox(path) as outbox:
        live(outbox, 1.0, 4 * ["AB"])
        before = told(outbox)
        outbox._db.execute("CREATE TRIGGER no BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(OutboxError, match="no"):
            outbox.load(scorer(0.5).fingerprint)
    with Outbox(path) as outbox:
        assert told(outbox) == before
        outbox._db.execute("DROP TRIGGER no")
        outbox.load(scorer(0.5).fingerprint)
    with Outbox(path) as outbox:
        outbox.load(scorer(0.5).fingerprint)
        assert [status for *_, status in told(outbox)[len(before) :]] == [Status.CLOSED] * 3


def test_the_associator_hears_of_it(path: Path) -> None:
    with Outbox(path) as outbox:
        live(outbox, 1.0, 4 * ["A"], with_notes=True)
        before = len(outbox.unsent_notes(99))
        outbox.load(scorer(0.5).fingerprint)
        (last,) = [Note.model_validate_json(text) for _, text in outbox.unsent_notes(99)[before:]]
        opened, closed = outbox.alerts()
    (member,) = last.members
    assert (member.id, member.closed, member.decided_ns) == (closed.id, True, closed.off_time)
    assert (last.model, opened.id) == (closed.model, closed.id)


@pytest.mark.parametrize("loss", ["DELETE FROM alert", "UPDATE alert SET body = json_remove(body, '$.model')"])
def test_one_whose_opening_the_outbox_has_lost_is_named(
    loss: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Outbox(path) as outbox:
        live(outbox, 1.0, 4 * ["A"])
        (opened,) = outbox.alerts()
        outbox._db.execute(loss)
        outbox.load(scorer(0.5).fingerprint)
        assert outbox._db.execute("SELECT count(*) FROM alert WHERE revision > 0").fetchone() == (0,)
    assert f"{opened.id} stays open" in caplog.text


def test_redis_has_one_closing_and_no_second_opening_of_the_same_earthquake(valkey: Valkey, path: Path) -> None:
    with Outbox(path) as outbox:
        live(outbox, 1.0, 4 * ["A"])
        live(outbox, 0.5, [*6 * ["A"], *6 * [""]], 2.0)
        count = len(told(outbox))
    with publishing(path, publish_settings(valkey.url, valkey.prefix)) as (_, heard):
        until(lambda: len(heard.outcomes) == count)
    assert [outcome for *_, outcome in heard.outcomes] == ["sent", "sent", "echo", "echo"]
    with valkey.client() as client:
        entries = client.xrange(Keys(valkey.prefix).detections)
    found = [Alert.model_validate_json(fields["alert"]) for _, fields in entries]  # type: ignore[union-attr]
    assert [one.status for one in found] == [Status.OPEN, Status.CLOSED]


lives = st.lists(
    st.tuples(st.sampled_from([0.5, 1.0]), st.lists(st.sampled_from(["", "A", "AB", "BC", "ABC"]), max_size=30)),
    max_size=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives)
def test_after_a_change_each_that_was_open_has_one_closing_and_no_id_another(
    lives: list[tuple[float, list[str]]],
) -> None:
    with Outbox(":memory:") as outbox:
        begin_s = 0.0
        for hop_s, loud in lives:
            begin_s = live(outbox, hop_s, loud, begin_s)
        outbox.load("another/9/100/2080/25")
        alerts = list(outbox.alerts())
    opened = [one.id for one in alerts if one.status is Status.OPEN]
    closed = [one.id for one in alerts if one.status is Status.CLOSED]
    assert len(set(opened)) == len(opened)
    assert sorted(opened) == sorted(closed)
    for one in alerts:
        assert [other.revision for other in alerts if other.id == one.id][-1] >= one.revision
