from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest
from made_alerts import NOW_NS, alert, opening

import streamer.outbox as outbox_module
from quake.alerts import Alert
from streamer.coincidence import CoincidenceState
from streamer.outbox import FORGET, SCHEMA, DamagedError, Outbox, OutboxError, Produced, Progress
from streamer.source.resume import ResumePoint
from streamer.trigger import TriggerState

PROGRESS = Progress(
    alerts=[opening("a", 7), Produced(alert("b"))],
    triggers={"S": TriggerState(last_k=9, run=[(8, 0.1 + 0.2)])},
    coincidence=CoincidenceState(reached_ns=5),
    resume={("seedlink://x", "XX_ABC"): ResumePoint(2**64 - 1, 5, 4), ("y", "XX_ABC"): ResumePoint(None, None)},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "outbox.sqlite"


def test_a_restart_finds_everything(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.load("f")
        assert outbox.commit(PROGRESS) == 2
    with Outbox(path) as outbox:
        saved = outbox.load("f")
        assert (saved.triggers, saved.coincidence) == (PROGRESS.triggers, PROGRESS.coincidence)
        assert saved.resume == PROGRESS.resume
        assert [(u.k, Alert.model_validate_json(u.body)) for u in outbox.unsent(9)] == [
            (p.k, p.alert) for p in PROGRESS.alerts
        ]
        assert outbox.backlog() == (2, NOW_NS)


def test_it_survives_a_power_cut(path: Path) -> None:
    with Outbox(path) as outbox:
        assert outbox._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert outbox._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_under_another_model_states_mean_nothing_and_the_rest_stays(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.load("f")
        outbox.commit(PROGRESS)
        saved = outbox.load("g")
    assert (saved.triggers, saved.coincidence, saved.resume) == ({}, None, PROGRESS.resume)


def test_a_commit_is_all_or_nothing(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox._db.execute("CREATE TRIGGER no BEFORE INSERT ON resume BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(sqlite3.IntegrityError, match="no"):
            outbox.commit(PROGRESS)
        assert outbox.backlog() == (0, None)
        assert not outbox.load("").triggers
        outbox._db.execute("DROP TRIGGER no")
        assert outbox.commit(PROGRESS) == 2


def test_what_is_there_already_is_left_as_it_is(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.commit(Progress(alerts=[Produced(alert("a"))]))
        again = [Produced(alert("a", probability=0.1)), Produced(alert("a", 1))]
        assert outbox.commit(Progress(alerts=again)) == 1
        bodies = [Alert.model_validate_json(u.body) for u in outbox.unsent(9)]
    assert [(b.revision, b.probability) for b in bodies] == [(0, 0.9), (1, 0.9)]


def test_sent_pruned_and_offered_again(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.commit(Progress(alerts=[Produced(alert(str(n), created=NOW_NS + n)) for n in range(4)]))
        outbox.mark_sent([u.sequence for u in outbox.unsent(3)])
        assert outbox.backlog() == (1, NOW_NS + 3)
        assert outbox.prune(NOW_NS + 1) == 1
        assert outbox.send_again(NOW_NS + 2) == 1
        assert [Alert.model_validate_json(u.body).created - NOW_NS for u in outbox.unsent(9)] == [2, 3]
        assert outbox.prune(NOW_NS + 100) == 1  # what waits is never forgotten


def test_full_disk_quota_forgets_the_oldest_that_were_sent(path: Path) -> None:
    alerts = [Produced(alert(str(n), created=NOW_NS + n)) for n in range(4000)]
    with Outbox(path) as outbox:
        outbox.commit(Progress(alerts=alerts))
        full = outbox.used_bytes()
        assert outbox.shrink(full) == 0
        assert outbox.shrink(full // 2) == 0  # nothing was sent: all of it waits
        outbox.mark_sent([u.sequence for u in outbox.unsent(3500)])
        gone = outbox.shrink(2 * full // 3)
        assert FORGET <= gone <= 3 * FORGET
        assert outbox.used_bytes() <= 2 * full // 3
        assert outbox.send_again(0) == 3500 - gone
        assert Alert.model_validate_json(outbox.unsent(1)[0].body).created == NOW_NS + gone
        outbox.mark_sent([u.sequence for u in outbox.unsent(3500 - gone)])
        assert outbox.shrink(1) == 3500 - gone
        assert outbox.backlog() == (500, NOW_NS + 3500)


def test_file_does_not_grow_where_room_was_made(path: Path) -> None:
    with Outbox(path) as outbox:
        sizes = []
        for turn in range(4):
            outbox.commit(Progress(alerts=[Produced(alert(f"{turn}-{n}")) for n in range(2000)]))
            outbox.mark_sent([u.sequence for u in outbox.unsent(2000)])
            outbox.shrink(1)
            outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sizes.append(path.stat().st_size)
    assert sizes[-1] <= 1.02 * sizes[0]


def test_a_newer_schema_is_refused(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox._db.execute(f"PRAGMA user_version = {SCHEMA + 1}")
    with pytest.raises(OutboxError, match=rf"{path}: schema {SCHEMA + 1} is newer"):
        Outbox(path)


def test_an_older_schema_is_migrated_and_a_crash_leaves_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release to come, whose alerts have one column more, by two steps; the second fails at first."""
    with Outbox(path) as outbox:
        outbox.commit(PROGRESS)
    monkeypatch.setattr(outbox_module, "SCHEMA", SCHEMA + 2)
    steps = {SCHEMA: ("ALTER TABLE alert ADD COLUMN shard INTEGER NOT NULL DEFAULT 7",), SCHEMA + 1: ("nonsense",)}
    monkeypatch.setattr(outbox_module, "MIGRATIONS", steps)
    with pytest.raises(OutboxError, match="nonsense"):
        Outbox(path)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA,)
        assert "shard" not in [row[1] for row in db.execute("PRAGMA table_info(alert)")]
    db.close()
    steps[SCHEMA + 1] = ("UPDATE alert SET shard = 8",)
    for _ in range(2):
        with Outbox(path) as outbox:
            assert outbox._version() == SCHEMA + 2
            assert outbox._db.execute("SELECT shard FROM alert").fetchall() == [(8,), (8,)]
            assert len(outbox.unsent(9)) == 2


def test_a_schema_that_nothing_leads_on_from_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Outbox(path).close()
    monkeypatch.setattr(outbox_module, "SCHEMA", SCHEMA + 1)
    with pytest.raises(OutboxError, match=f"schema {SCHEMA} is too old"):
        Outbox(path)


def test_a_file_that_is_no_database_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(DamagedError, match=f"outbox {path}: file is not a database"):
        Outbox(path)


def test_a_file_that_cannot_be_opened_is_not_taken_for_a_damaged_one(path: Path) -> None:
    path.mkdir(parents=True)
    with pytest.raises(OutboxError, match=f"outbox {path}: unable to open") as caught:
        Outbox(path)
    assert caught.type is OutboxError


def test_damaged_pages_are_named(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.commit(Progress(triggers={f"S{n}": TriggerState(last_k=n) for n in range(400)}))
        outbox._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(OutboxError, match=str(path)), Outbox(path) as outbox:
        outbox.load("")


def test_a_state_that_cannot_be_read_is_named(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.load("f")
        outbox._db.execute("INSERT INTO trigger_state VALUES ('S', '{\"last_k\": \"x\"}')")
        with pytest.raises(OutboxError, match="cannot be read"):
            outbox.load("f")


def test_a_full_disk_surfaces_and_a_later_commit_succeeds(path: Path) -> None:
    big = Progress(triggers={f"S{n}": TriggerState(last_k=n, trace=[(n, 0.5)] * 30) for n in range(500)})
    with Outbox(path) as outbox:
        (pages,) = outbox._db.execute("PRAGMA page_count").fetchone()
        outbox._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(sqlite3.OperationalError, match="full"):
            outbox.commit(big)
        assert not outbox._db.in_transaction
        outbox._db.execute("PRAGMA max_page_count = 100000")
        outbox.commit(big)
        assert len(outbox.load("").triggers) in (0, 500)
        outbox.commit(big)
        assert len(outbox.load("").triggers) == 500


def test_a_failed_commit_statement_leaves_no_transaction_open(path: Path) -> None:
    """The disk may fill up at COMMIT itself; here a deferred constraint fails there."""
    with Outbox(path) as outbox:
        outbox._db.execute("PRAGMA foreign_keys = ON")
        outbox._db.execute("CREATE TABLE p (i INTEGER PRIMARY KEY)")
        outbox._db.execute("CREATE TABLE c (i INTEGER REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
        outbox._db.execute("CREATE TRIGGER late AFTER INSERT ON resume BEGIN INSERT INTO c VALUES (1); END")
        with pytest.raises(sqlite3.IntegrityError):
            outbox.commit(PROGRESS)
        outbox._db.execute("DROP TRIGGER late")
        assert outbox.commit(PROGRESS) == 2


def test_two_threads_may_open_a_new_file_at_once(path: Path) -> None:
    with Outbox(path) as one, Outbox(path) as other:
        one.commit(PROGRESS)
        assert len(other.unsent(9)) == 2
        other.mark_sent([1, 2])
        assert one.backlog()[0] == 0


def test_damage_that_one_thread_has_seen_ends_the_other(path: Path) -> None:
    with Outbox(path) as one, Outbox(path) as other:
        one.commit(PROGRESS)
        one.note.touch()
        for call in (other.backlog, lambda: other.unsent(1), lambda: other.commit(Progress()), lambda: other.get("x")):
            with pytest.raises(DamagedError, match=f"^outbox {path}: it is damaged: another thread has seen it$"):
                call()
        assert one.path.with_name("outbox.sqlite.damaged").exists()


def test_damage_seen_while_running_is_noted_for_the_other_thread(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.commit(PROGRESS)
    path.write_bytes(path.read_bytes()[:4096] + b"\xa5" * (path.stat().st_size - 4096))
    with Outbox(path) as outbox:
        with pytest.raises(DamagedError, match=f"^outbox {path}: it is damaged: .*malformed"):
            outbox.unsent(9)
        assert outbox.note.exists()


def test_what_is_no_damage_is_raised_as_it_is_and_noted_nowhere(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox._db.execute("DROP TABLE meta")
        with pytest.raises(sqlite3.OperationalError, match="no such table: meta"):
            outbox.get("x")
        assert not outbox.note.exists()


def test_a_check_says_what_is_wrong(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.commit(PROGRESS)
        assert outbox.check() is None
        outbox._db.execute("INSERT INTO trigger_state VALUES ('X', '{\"last_k\": \"x\"}')")
        assert "valid integer" in str(outbox.check())
        outbox._db.execute("DELETE FROM trigger_state WHERE subject = 'X'")
        outbox.note.touch()
        assert "another thread has seen it" in str(outbox.check())


def test_every_finding_of_a_check_is_told(path: Path) -> None:
    with Outbox(path) as outbox:
        outbox.commit(PROGRESS)
        outbox._db.execute("PRAGMA writable_schema = ON")
        for column in ("k INTEGER", "subject TEXT"):
            change = (
                f"UPDATE sqlite_schema SET sql = replace(sql, '{column}', '{column} NOT NULL') WHERE name = 'alert'"
            )
            outbox._db.execute(change)
    with Outbox(path) as outbox:
        assert outbox.check() == "NULL value in alert.k; NULL value in alert.subject"


def test_a_commit_waits_for_the_other_threads_transaction(path: Path) -> None:
    """It is over within milliseconds, and a failed commit would hold everything up for a second."""

    def other() -> None:
        with Outbox(path) as outbox:
            begin.wait(10)
            outbox.set("name", "value")

    begin, thread = threading.Event(), threading.Thread(target=other)
    with Outbox(path) as one:
        thread.start()
        with one._transaction():
            begin.set()
            thread.join(0.3)
            assert thread.is_alive()
        thread.join(10)
        assert one.get("name") == "value"
