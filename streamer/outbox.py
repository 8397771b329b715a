"""The outbox: one SQLite file that makes alerts, trigger states, coincidence and resume points one acknowledgement.

A transaction holds what was decided together; nothing leaves the machine before it is committed here, and a restart
loads all of it. Talks to no network; `streamer.publisher` empties it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from pydantic import ValidationError

from quake.alerts import Alert
from quake.times import parse_ns
from streamer import cut_off
from streamer.coincidence import CoincidenceState
from streamer.source.resume import ResumePoint
from streamer.trigger import TriggerState

SCHEMA = 4
"""``PRAGMA user_version``: a file with a higher one was written by a newer release."""
NOTES = "CREATE TABLE note (sequence INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL, sent INTEGER NOT NULL DEFAULT 0)"
IDENTITY = "INSERT INTO meta VALUES ('identity', lower(hex(randomblob(16))))"
MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: (),  # 2: states tell of sizes, which an older release does not read
    2: (NOTES, IDENTITY),
    3: (),  # 4: events tell that they are over, which an older release does not read
}
"""Schema -> the statements that make the next one of it. An outbox may be as old as the oldest that stands here."""
DAMAGED = ".damaged"
"""What is added to the file's name for a note beside it: one thread has seen that it is damaged, and the others are to know."""
BUSY_S = 10.0
"""The publisher marks alerts as sent while the pipeline commits; neither holds the file for longer than
milliseconds."""
OPENINGS = 2_000
"""The newest that a restart looks at, for how many were told a minute."""
KEPT_NOTES = 200
"""Of those that were sent, for a Redis that has lost the last of them: a minute's."""
FORGET = 1_000
"""Alerts forgotten together where the disk is short: some megabytes."""

_TABLES = f"""
CREATE TABLE alert (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL, revision INTEGER NOT NULL, created_ns INTEGER NOT NULL,
    k INTEGER, subject TEXT, body TEXT NOT NULL, sent INTEGER NOT NULL DEFAULT 0,
    UNIQUE (id, revision)
);
CREATE INDEX alert_unsent ON alert (sequence) WHERE sent = 0;
CREATE TABLE trigger_state (subject TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE resume (
    server TEXT, station TEXT, sequence TEXT, time_ns INTEGER, packet_ns INTEGER, PRIMARY KEY (server, station)
);
CREATE INDEX alert_sent ON alert (created_ns) WHERE sent = 1;
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL);
{NOTES};
{IDENTITY};
"""


class OutboxError(Exception):
    """The file cannot be used: says which and why."""


class DamagedError(OutboxError):
    """Bytes of the file are not what was written: waiting will not mend it, `streamer.salvage` may."""


def is_damage(error: sqlite3.Error) -> bool:
    """Of the file itself, and no disk that is full or file that is locked."""
    code = getattr(error, "sqlite_errorcode", 0)
    is_cut = code == sqlite3.SQLITE_IOERR_SHORT_READ
    return is_cut or (code & 0xFF) in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


P = ParamSpec("P")
R = TypeVar("R")


def _tells_damage(
    method: Callable[Concatenate[Outbox, P], R],
) -> Callable[Concatenate[Outbox, P], R]:
    """`DamagedError` in place of SQLite's, here and from then on in whatever other thread has the file open: that one's
    pages may be whole, and alerts would wait for ever."""

    @wraps(method)
    def told(self: Outbox, /, *arguments: P.args, **names: P.kwargs) -> R:
        if self.note.exists():
            raise DamagedError(f"outbox {self.path}: it is damaged: another thread has seen it")
        try:
            return method(self, *arguments, **names)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            self.note.touch()
            raise DamagedError(f"outbox {self.path}: it is damaged: {error}") from error

    return told


@dataclass(frozen=True, slots=True)
class Produced:
    """An alert on its way out."""

    alert: Alert
    k: int | None = None
    """Of a detection: its first window."""


@dataclass(slots=True)
class Progress:
    """What one transaction holds."""

    alerts: list[Produced] = field(default_factory=list)
    triggers: Mapping[str, TriggerState] = field(default_factory=dict)
    coincidence: CoincidenceState | None = None
    resume: Mapping[tuple[str, str], ResumePoint] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    """As `Outbox.set` takes them."""
    note: str | None = None
    """For the associator."""


@dataclass(frozen=True, slots=True)
class Saved:
    """What a restart finds."""

    triggers: dict[str, TriggerState]
    coincidence: CoincidenceState | None
    resume: dict[tuple[str, str], ResumePoint]
    opened_ns: tuple[int, ...] = ()
    """When the newest openings of single stations were decided."""


@dataclass(frozen=True, slots=True)
class Unsent:
    sequence: int
    body: str
    k: int | None


def _columns(point: ResumePoint) -> tuple[str | None, int | None, int | None]:
    """SeedLink 4 counts to 2^64, SQLite's integers to 2^63: the number goes in as text."""
    return None if point.sequence is None else str(point.sequence), point.time_ns, point.packet_ns


class Outbox:
    """Used by one thread; a second thread opens its own on the same path."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.note = self.path.with_name(self.path.name + DAMAGED)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
            self._prepare()
        except (OSError, sqlite3.Error) as error:
            self._give_up()
            kind = DamagedError if isinstance(error, sqlite3.Error) and is_damage(error) else OutboxError
            raise kind(f"outbox {self.path}: {error}") from error
        except OutboxError:
            self._give_up()
            raise

    def close(self) -> None:
        self._db.close()

    def _give_up(self) -> None:
        if hasattr(self, "_db"):
            self._db.close()

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # an alert that was committed survives a power cut
        if self._version() > SCHEMA:
            found = self._version()
            raise OutboxError(f"outbox {self.path}: schema {found} is newer than this release, which knows {SCHEMA}")
        with self._transaction():
            if self._version() == 0:  # asked inside the transaction: pipeline and publisher may open a new file at once
                for statement in _TABLES.split(";\n"):
                    self._db.execute(statement)
            for version in range(self._version() or SCHEMA, SCHEMA):
                self._migrate(version)
            self._db.execute(f"PRAGMA user_version = {SCHEMA}")

    def _migrate(self, version: int) -> None:
        """One step, in the transaction that opens the file: a crash leaves the older one."""
        if version not in MIGRATIONS:
            raise OutboxError(f"outbox {self.path}: schema {version} is too old for this release, which knows {SCHEMA}")
        for statement in MIGRATIONS[version]:
            self._db.execute(statement)

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")  # may fail as well, on a full disk
        except BaseException:
            if self._db.in_transaction:  # SQLite has rolled back by itself after some failures
                self._db.execute("ROLLBACK")
            raise

    def load(self, fingerprint: str) -> Saved:
        """What was decided before. Trigger states belong to one grid and one model, named by ``fingerprint``; under
        another one they mean nothing and are left out, and what is open is closed, once; alerts and resume points stay.
        Raises `OutboxError`."""
        try:
            return self._load(fingerprint)
        except (sqlite3.Error, ValueError) as error:
            raise OutboxError(f"outbox {self.path}: what it holds cannot be read: {error}") from error

    @_tells_damage
    def _load(self, fingerprint: str) -> Saved:
        before = self.get("fingerprint")
        if before != fingerprint:
            with self._transaction():
                if before is not None:
                    self._cut_off(before)
                self._db.execute("DELETE FROM trigger_state")
                self._db.execute("DELETE FROM meta WHERE name = 'coincidence'")
                self._set("fingerprint", fingerprint)
        return self._saved()

    def _cut_off(self, fingerprint: str) -> None:
        """Close what is open in the states, in the transaction that forgets them."""
        saved = self._saved()
        ended = cut_off.detections(fingerprint, saved.triggers)
        for alert in cut_off.closings(fingerprint, ended, saved.coincidence, self._newest, time.time_ns()):
            self._add(Produced(alert))
        last = self._db.execute("SELECT body FROM note ORDER BY sequence DESC LIMIT 1").fetchone()
        if ended and last is not None:
            self._db.execute("INSERT INTO note (body) VALUES (?)", (cut_off.note(ended, last[0]),))

    def _newest(self, ident: str) -> Alert | None:
        query = "SELECT body FROM alert WHERE id = ? ORDER BY revision DESC LIMIT 1"
        for (body,) in self._db.execute(query, (ident,)):
            with suppress(ValidationError):  # the publisher gives it up, too
                return Alert.model_validate_json(body)
        return None

    def _saved(self) -> Saved:
        body = self.get("coincidence")
        coincidence = CoincidenceState.model_validate_json(body) if body else None
        return Saved(self._triggers(), coincidence, self._resume(), tuple(self._openings()))

    def _triggers(self) -> dict[str, TriggerState]:
        states = self._db.execute("SELECT subject, body FROM trigger_state")
        return {subject: TriggerState.model_validate_json(body) for subject, body in states}

    def _resume(self) -> dict[tuple[str, str], ResumePoint]:
        return {
            (server, station): ResumePoint(None if sequence is None else int(sequence), time_ns, packet_ns)
            for server, station, sequence, time_ns, packet_ns in self._db.execute("SELECT * FROM resume")
        }

    @_tells_damage
    def settled(self) -> Saved | None:
        """Triggers and resume points, of one moment at which all alerts and notes made by then were sent; None while one
        waits."""
        self._db.execute("BEGIN")  # one look: the pipeline commits meanwhile
        try:
            waits = self.backlog()[0] or self.unsent_notes(1)
            return None if waits else Saved(self._triggers(), None, self._resume())
        finally:
            self._db.execute("COMMIT")

    @_tells_damage
    def points(self) -> int:
        """How many resume points there are."""
        return int(self._db.execute("SELECT count(*) FROM resume").fetchone()[0])

    @property
    def identity(self) -> str:
        """Of this file for good: a name that no other outbox has."""
        return self.get("identity") or ""

    def _openings(self) -> Iterator[int]:
        newest = "FROM alert WHERE k IS NOT NULL AND revision = 0 AND json_valid(body) ORDER BY sequence DESC LIMIT ?"
        for (text,) in self._db.execute(f"SELECT json_extract(body, '$.on_time') {newest}", (OPENINGS,)):
            yield parse_ns(text)

    def check(self) -> str | None:
        """What is wrong with the file, None where it is sound: its pages, and what a restart needs of them."""
        try:
            found = [str(row[0]) for row in self._db.execute("PRAGMA quick_check(3)")]
            if found == ["ok"]:
                self._saved()
                return None
        except (sqlite3.Error, ValueError, OutboxError) as error:
            return str(error)
        return "; ".join(found)

    def restore(self, rows: Mapping[str, Sequence[Sequence[object]]]) -> None:
        """Rows of another outbox, by table, as they are."""
        with self._transaction():
            for table, found in rows.items():
                for row in found:
                    self._db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({', '.join('?' * len(row))})", row)

    @_tells_damage
    def commit(self, progress: Progress) -> int:
        """Write it all or nothing; the number of alerts that were new. One that is there already (the same id and
        revision, decided again after a restart) is left as it is."""
        with self._transaction():
            new = sum(self._add(produced) for produced in progress.alerts)
            self._db.executemany(
                "INSERT OR REPLACE INTO trigger_state VALUES (?, ?)",
                [(subject, state.model_dump_json()) for subject, state in progress.triggers.items()],
            )
            self._db.executemany(
                "INSERT OR REPLACE INTO resume VALUES (?, ?, ?, ?, ?)",
                [(*key, *_columns(point)) for key, point in progress.resume.items()],
            )
            if progress.coincidence is not None:
                self._set("coincidence", progress.coincidence.model_dump_json())
            for name, value in progress.values.items():
                self._set(name, value)
            if progress.note is not None:
                self._db.execute("INSERT INTO note (body) VALUES (?)", (progress.note,))
        return new

    def _add(self, produced: Produced) -> int:
        alert = produced.alert
        subject = alert.stations[0].source_id if produced.k is not None else None
        row = (alert.id, alert.revision, alert.created, produced.k, subject, alert.model_dump_json())
        return self._db.execute(
            "INSERT OR IGNORE INTO alert (id, revision, created_ns, k, subject, body) VALUES (?, ?, ?, ?, ?, ?)", row
        ).rowcount

    @_tells_damage
    def unsent(self, limit: int) -> list[Unsent]:
        """The oldest alerts that have not been sent, in the order in which they were decided."""
        rows = self._db.execute(
            "SELECT sequence, body, k FROM alert WHERE sent = 0 ORDER BY sequence LIMIT ?", (limit,)
        )
        return [Unsent(*row) for row in rows]

    def alerts(self) -> Iterator[Alert]:
        """All that it holds, in the order in which they were decided. Raises `OutboxError`."""
        try:
            for (body,) in self._db.execute("SELECT body FROM alert ORDER BY sequence"):
                yield Alert.model_validate_json(body)
        except (sqlite3.Error, ValueError) as error:
            raise OutboxError(f"outbox {self.path}: what it holds cannot be read: {error}") from error

    @_tells_damage
    def mark_sent(self, sequences: Sequence[int]) -> None:
        with self._transaction():
            self._db.executemany("UPDATE alert SET sent = 1 WHERE sequence = ?", [(s,) for s in sequences])

    @_tells_damage
    def unsent_notes(self, limit: int, after: int = 0) -> list[tuple[int, str]]:
        """(sequence, note), in the order in which they were made, of sequences beyond ``after``."""
        query = "SELECT sequence, body FROM note WHERE sent = 0 AND sequence > ? ORDER BY sequence LIMIT ?"
        rows = self._db.execute(query, (after, limit))
        return [(int(sequence), str(body)) for sequence, body in rows]

    @_tells_damage
    def notes_waiting(self) -> int:
        """About how many are unsent: they are marked a little later."""
        first = self.unsent_notes(1)
        newest = self._db.execute("SELECT max(sequence) FROM note").fetchone()[0]
        return int(newest) - first[0][0] + 1 if first else 0

    @_tells_damage
    def mark_notes_sent(self, last: int) -> None:
        """Up to that sequence; older ones are forgotten."""
        if not self.unsent_notes(1):
            return
        with self._transaction():
            self._db.execute("UPDATE note SET sent = 1 WHERE sent = 0 AND sequence <= ?", (last,))
            self._db.execute("DELETE FROM note WHERE sent = 1 AND sequence <= ?", (last - KEPT_NOTES,))

    @_tells_damage
    def send_notes_again(self) -> None:
        """Those that are still there."""
        with self._transaction():
            self._db.execute("UPDATE note SET sent = 0 WHERE sent = 1")

    @_tells_damage
    def send_again(self, since_ns: int) -> int:
        """Take the alerts committed since then for unsent: Redis may have lost them. How many."""
        with self._transaction():
            return self._db.execute(
                "UPDATE alert SET sent = 0 WHERE sent = 1 AND created_ns >= ?", (since_ns,)
            ).rowcount

    @_tells_damage
    def prune(self, before_ns: int) -> int:
        """Forget alerts that were sent and committed before then."""
        with self._transaction():
            return self._db.execute("DELETE FROM alert WHERE sent = 1 AND created_ns < ?", (before_ns,)).rowcount

    @_tells_damage
    def shrink(self, most_bytes: int) -> int:
        """Forget alerts that were sent, oldest first, until the file needs no more than that; how many. What waits stays.

        SQLite hands no page back to the disk and uses it again: the file stays as large as it once had to be.
        """
        forgotten = 0
        while self.used_bytes() > most_bytes and (gone := self._forget(FORGET)):
            forgotten += gone
        return forgotten

    def _forget(self, count: int) -> int:
        oldest = "SELECT sequence FROM alert WHERE sent = 1 ORDER BY sequence LIMIT ?"
        with self._transaction():
            return self._db.execute(f"DELETE FROM alert WHERE sequence IN ({oldest})", (count,)).rowcount

    @_tells_damage
    def used_bytes(self) -> int:
        """Of the file, without the pages that wait to be used again."""
        names = ("page_count", "freelist_count", "page_size")
        pages, free, size = (int(self._db.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
        return (pages - free) * size

    @_tells_damage
    def backlog(self) -> tuple[int, int | None]:
        """Alerts unsent, and when the oldest of them was committed."""
        depth, oldest_ns = self._db.execute("SELECT count(*), min(created_ns) FROM alert WHERE sent = 0").fetchone()
        return int(depth), oldest_ns

    @_tells_damage
    def get(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    @_tells_damage
    def set(self, name: str, value: str) -> None:
        with self._transaction():
            self._set(name, value)

    def _set(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, value))
