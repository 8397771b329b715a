"""Opens the outbox at a start: one that is damaged is put aside, and what can be read of it goes into a new one.

Neither are alerts lost in silence, nor is a station blind until somebody comes: pages that are whole are carried over,
alerts with their numbers and marks, the rest is counted and told. Without a resume point that can be read a server is
asked "from now on", as at a first start, unless Redis knows how far the station was.
Only for who holds the lock on the state: nobody else has the file open.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from quake.alerts import Alert
from streamer.association.notes import Note
from streamer.coincidence import CoincidenceState
from streamer.outbox import SCHEMA, DamagedError, Outbox
from streamer.source.resume import ResumePoint
from streamer.trigger import TriggerState

FILES = ("", "-wal", "-shm")
"""What SQLite keeps beside the file has its name."""
KEPT = 3
"""Damaged outboxes: the older ones go, or a disk that fails would be filled with them."""
MOST_NUMBERS = 100_000
"""Row numbers that are asked for one by one: a few seconds."""
ALERT, STATE, RESUME, META, NOTE = "alert", "trigger_state", "resume", "meta", "note"
COINCIDENCE = "coincidence"
"""Of the table meta."""
ASKED_ANEW = "shard"
"""The same: empty, so that Redis is asked for the stations whose resume points are lost."""

log = logging.getLogger(__name__)
Row = tuple[object, ...]


@dataclass(slots=True)
class Found:
    """What could be read of one table."""

    rows: list[Row] = field(default_factory=list)
    lost: int | None = 0
    """Rows that could not, at most; None where nothing tells how many there were."""


@dataclass(frozen=True, slots=True)
class Carried:
    """What came over."""

    tables: Mapping[str, Found]

    def __str__(self) -> str:
        alerts = self.tables[ALERT]
        unsent = sum(not row[-1] for row in alerts.rows)
        lost = "nobody knows how many" if alerts.lost is None else f"at most {alerts.lost}"
        states, resume = (len(self.tables[name].rows) for name in (STATE, RESUME))
        return (
            f"{len(alerts.rows)} alerts carried over, {unsent} of them not yet sent; {lost} alerts lost; "
            f"{states} stations' states and {resume} resume points carried over"
        )


def open_outbox(path: Path) -> Outbox:
    """The outbox of that path, sound. Raises `OutboxError` where it is of another release, or cannot be opened."""
    fault = _fault(path)
    if fault is None:
        return Outbox(path)
    aside = _put_aside(path)
    outbox = Outbox(path)
    carried = carry_over(aside, outbox)
    outbox.set(ASKED_ANEW, "")
    log.error("outbox %s is damaged (%s) and was put aside as %s: %s", path, fault, aside, carried)
    return outbox


def _fault(path: Path) -> str | None:
    """What is wrong with the file; None where nothing is, or there is no file."""
    if not path.exists():
        return None
    if not path.stat().st_size and not path.with_name(f"{path.name}-wal").exists():
        return "it is empty"
    try:
        with Outbox(path) as outbox:
            return "it was found to be while in use" if outbox.note.exists() else outbox.check()
    except DamagedError as error:
        return str(error)


def _put_aside(path: Path) -> Path:
    """Under another name, together with what belongs to it."""
    name = f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    for suffix in FILES:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(path.with_name(name + suffix))
    path.with_name(f"{path.name}.damaged").unlink(missing_ok=True)
    _forget_older(path)
    return path.with_name(name)


def _forget_older(path: Path) -> None:
    aside = sorted(p for p in path.parent.glob(f"{path.name}.damaged-*") if p.name.endswith("Z"))
    for older in aside[:-KEPT]:
        for suffix in FILES:
            older.with_name(older.name + suffix).unlink(missing_ok=True)


def carry_over(damaged: Path, outbox: Outbox) -> Carried:
    """All that can be read and understood. Alerts keep their order, and what was sent stays sent."""
    with closing(sqlite3.connect(damaged, isolation_level=None)) as db:
        with suppress(sqlite3.Error):  # in a file that is shorter than it says, SQLite reads nothing otherwise
            db.execute("PRAGMA writable_schema = ON")
        db.text_factory = lambda text: text.decode("utf-8", "replace")
        tables = {name: _understood(name, _read(db, name)) for name in (ALERT, STATE, RESUME, META, NOTE)}
    outbox.restore({name: found.rows for name, found in tables.items()})
    return Carried(tables)


def _read(db: sqlite3.Connection, table: str) -> Found:
    """By the rows' numbers, which needs no index: upwards past what is damaged, or else from the end down too."""
    rows: dict[int, Row] = {}
    if _number(db, "PRAGMA user_version") != SCHEMA or _number(db, "SELECT count(*) FROM sqlite_schema") is None:
        return Found(lost=None)
    passed = _upwards(db, table, rows)
    if passed is None:
        with suppress(sqlite3.Error):
            rows.update(_numbered(db, f"SELECT rowid, * FROM {table} ORDER BY rowid DESC"))
    return Found([rows[number] for number in sorted(rows)], passed)


def _upwards(db: sqlite3.Connection, table: str, rows: dict[int, Row]) -> int | None:
    """How many could not be read; None where nobody knows. All at once where nothing is damaged, otherwise one by one: a
    query for more goes wrong with the last row before the damage."""
    with suppress(sqlite3.Error):
        rows.update(_numbered(db, f"SELECT rowid, * FROM {table} ORDER BY rowid"))
        return 0
    first, last, passed = _number(db, f"SELECT min(rowid) FROM {table}") or 1, _last(db, table), 0
    end = first + MOST_NUMBERS if last is None else min(last + 1, first + MOST_NUMBERS)
    for number in range(first, end):
        try:
            rows.update(_numbered(db, f"SELECT rowid, * FROM {table} WHERE rowid = {number}"))
        except sqlite3.Error:
            passed += 1
    return passed if last is not None and last < end else None


def _last(db: sqlite3.Connection, table: str) -> int | None:
    given = _number(db, "SELECT seq FROM sqlite_sequence WHERE name = ?", table)
    return _number(db, f"SELECT max(rowid) FROM {table}") if given is None else given


def _numbered(db: sqlite3.Connection, query: str) -> Iterator[tuple[int, Row]]:
    for number, *row in db.execute(query):
        yield number, tuple(row)


def _number(db: sqlite3.Connection, query: str, *arguments: str) -> int | None:
    try:
        row = db.execute(query, arguments).fetchone()
    except sqlite3.Error:
        return None
    return None if row is None or row[0] is None else int(row[0])


def _understood(table: str, found: Found) -> Found:
    """Without the rows that mean nothing any more: whole pages may hold bytes that are not what was written."""
    rows = [row for row in found.rows if _is_understood(table, row)]
    return Found(rows, None if found.lost is None else found.lost + len(found.rows) - len(rows))


def _is_understood(table: str, row: Row) -> bool:
    try:
        if table == ALERT:
            Alert.model_validate_json(str(row[6]))
        elif table == STATE:
            TriggerState.model_validate_json(str(row[1]))
        elif table == RESUME:
            ResumePoint(None if row[2] is None else int(str(row[2])), *row[3:])  # type: ignore[arg-type]
        elif table == NOTE:
            Note.model_validate_json(str(row[1]))
        elif row[0] == ASKED_ANEW:
            return False
        elif row[0] == COINCIDENCE:
            CoincidenceState.model_validate_json(str(row[1]))
    except ValueError:
        return False
    return True
