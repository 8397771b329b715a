from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from made_alerts import NOW_NS, alert

from quake.alerts import Alert
from streamer.outbox import DamagedError, Outbox, OutboxError, Produced, Progress
from streamer.salvage import open_outbox
from streamer.source.resume import ResumePoint
from streamer.trigger import TriggerState

COUNT, SENT = 40, 20
PAGE = 4096
ALERTS = [alert(f"alert{n}", created=NOW_NS + n) for n in range(COUNT)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Alerts, the older half of them sent, and what a restart needs; all of it in the file itself."""
    path = tmp_path / "outbox.sqlite"
    with Outbox(path) as outbox:
        outbox.load("f")
        outbox.commit(
            Progress(
                [Produced(one, n) for n, one in enumerate(ALERTS)],
                {"S": TriggerState(last_k=COUNT - 1)},
                None,
                {("seedlink://x", "XX_ABC"): ResumePoint(COUNT - 1, 5, 4)},
            )
        )
        outbox.mark_sent(range(1, SENT + 1))
        outbox.set("redis", "epoch")
    return path


def aside(path: Path) -> list[Path]:
    return [p for p in path.parent.iterdir() if re.search(r"\.damaged-\d{8}T\d{6}\.\d{6}Z$", p.name)]


def unsent(outbox: Outbox) -> list[int]:
    """Their numbers among ALERTS."""
    return [Alert.model_validate_json(u.body).created - NOW_NS for u in outbox.unsent(99)]


def overwrite(path: Path, number: int) -> int:
    """The page that holds the body of an alert; how many alerts lay there."""
    content = bytearray(path.read_bytes())
    at = content.index(ALERTS[number].model_dump_json()[:200].encode()) // PAGE * PAGE
    page = bytes(content[at : at + PAGE])
    content[at : at + PAGE] = b"\xa5" * PAGE
    path.write_bytes(content)
    return sum(one.id.encode() in page for one in ALERTS)


def test_a_sound_one_is_opened_as_it_is(path: Path) -> None:
    with open_outbox(path) as outbox:
        assert len(unsent(outbox)) == COUNT - SENT
    assert not aside(path)
    with open_outbox(path.with_name("new.sqlite")) as outbox:
        assert not unsent(outbox)


def test_what_is_whole_is_carried_over_in_order_and_the_rest_counted(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    there = overwrite(path, 25)
    assert there >= 1
    with open_outbox(path) as outbox:
        kept = unsent(outbox)
        saved = outbox.load("f")
        assert outbox.get("redis") == "epoch"
        assert outbox.check() is None
        numbers = [u.sequence for u in outbox.unsent(99)]
    lost = set(range(SENT, COUNT)) - set(kept)
    assert 25 in lost
    assert len(lost) <= there
    assert kept == sorted(kept)
    assert [n - 1 for n in numbers] == kept, "numbers and marks stay"
    assert saved.triggers == {"S": TriggerState(last_k=COUNT - 1)}
    assert saved.resume == {("seedlink://x", "XX_ABC"): ResumePoint(COUNT - 1, 5, 4)}
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    carried, told = map(int, re.findall(r"(\d+) alerts", caplog.text))
    assert told >= len(lost)
    assert carried + told == COUNT
    assert len(aside(path)) == 1
    with open_outbox(path) as outbox:
        assert unsent(outbox) == kept
    assert len(aside(path)) == 1


def no_database(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    """To three quarters: alerts lie behind the tables' first pages, in the second half."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // PAGE * 3 // 4 * PAGE])


def nothing_but_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100] + b"\xa5" * (path.stat().st_size - 100))


@pytest.mark.parametrize("damage", [no_database, empty, cut, nothing_but_the_header])
def test_it_goes_on_whatever_lies_there(
    path: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(path)
    before = path.read_bytes()
    with open_outbox(path) as outbox:
        assert outbox.load("f").resume in ({}, {("seedlink://x", "XX_ABC"): ResumePoint(COUNT - 1, 5, 4)})
        outbox.commit(Progress([Produced(alert("later", created=NOW_NS + COUNT))]))
        assert unsent(outbox)[-1] == COUNT
    assert "is damaged" in caplog.text
    assert (damage is cut) == (": 0 alerts carried over" not in caplog.text)
    assert aside(path)[0].read_bytes() == before


def test_a_state_that_means_nothing_is_left_behind(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox._db.execute("INSERT INTO trigger_state VALUES ('T', '{\"last_k\": \"x\"}')")
        outbox._db.execute("INSERT INTO meta VALUES ('coincidence', '{]')")
        outbox._db.execute("UPDATE alert SET body = '{' WHERE sequence = 40")
    with open_outbox(path) as outbox:
        assert outbox.load("f").triggers == {"S": TriggerState(last_k=COUNT - 1)}
        assert len(unsent(outbox)) == COUNT - SENT - 1


def test_an_index_that_is_damaged_costs_nothing(path: Path) -> None:
    with sqlite3.connect(path) as db:
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'alert_unsent'").fetchone()
    db.close()
    content = bytearray(path.read_bytes())
    content[(root - 1) * PAGE : root * PAGE] = b"\xa5" * PAGE
    path.write_bytes(content)
    with open_outbox(path) as outbox:
        assert len(unsent(outbox)) == COUNT - SENT


def test_one_of_a_newer_release_is_not_put_aside(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox._db.execute("PRAGMA user_version = 99")
    with pytest.raises(OutboxError, match="schema 99 is newer"):
        open_outbox(path)
    assert not aside(path)


def test_damage_seen_by_one_thread_is_known_to_the_others_and_mended_at_the_next_start(path: Path) -> None:
    with Outbox(path) as pipeline, Outbox(path) as publisher:
        publisher.unsent(1)
        overwrite(path, 25)
        publisher._db.execute("PRAGMA cache_size = 1")
        with pytest.raises(DamagedError):
            publisher.unsent(99)
        with pytest.raises(DamagedError, match="another thread has seen it"):
            pipeline.backlog()
    with open_outbox(path) as outbox:
        assert outbox.backlog()[0] >= 1
        assert not outbox.note.exists()


def test_only_the_newest_damaged_files_are_kept(path: Path) -> None:
    for _ in range(5):
        path.write_bytes(b"no database")
        open_outbox(path).close()
    kept = sorted(p.name for p in path.parent.iterdir() if ".damaged-" in p.name)
    assert len(kept) == 3
