"""Station-days of an FDSN service in a folder, as an SDS archive that a scan then reads.

One request at a time. A day that is over is asked for once, whatever came of it: an empty file under ``days``, written when its
records are safe, says so.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeGuard, TypeVar

from streamer.archive import DAY_NS, END_NS
from streamer.config import ConfigError
from streamer.fdsn import StationDay, is_open, sorted_out, station_days, station_request
from streamer.fdsn_service import DownloadError, RefusedError, Service
from streamer.record_index import Index, read_index
from streamer.server.records import RecordError
from streamer.source.selection import Pattern, SelectionError, parse_pattern

TRIES = 5
WAIT_S = 4.0
"""After the first try, twice that after the next, where the service does not say how long."""
MOST_MISSING = 5
"""Station-days that cannot be had, before the rest is not asked for either."""
SETTLED_NS = DAY_NS
"""For so long after its end a day may be filled up."""
TELL_S = 10.0

T = TypeVar("T")

log = logging.getLogger(__name__)


def is_service(path: Path | str) -> TypeGuard[str]:
    return isinstance(path, str) and path.startswith(("http://", "https://"))


def spools(urls: Sequence[str], select: Sequence[str], begin_ns: int, end_ns: int, state: Path | None) -> list[Spool]:
    """One for each address. Raises `ConfigError`."""
    if not urls:
        return []
    if state is None or begin_ns == 0 or end_ns == END_NS:
        raise ConfigError(f"{urls[0]}: needs --begin, --end, and --state FOLDER for what is downloaded")
    if not select:
        raise ConfigError(f"{urls[0]}: which stations? --select NET.STA.LOC.CHA, or --config with a source's `select`")
    try:
        patterns = tuple(map(parse_pattern, select))
    except SelectionError as error:
        raise ConfigError(f"--select: {error}") from error
    services = [Service.of(url, os.environ) for url in urls]
    names = (re.sub(r"\W+", "_", service.url.partition("://")[2]) for service in services)
    return [
        Spool(state / "spool" / name, service, patterns, begin_ns, end_ns)
        for name, service in zip(names, services, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class Spool:
    """Of one service, channels and a time."""

    folder: Path
    service: Service
    patterns: tuple[Pattern, ...]
    begin_ns: int
    end_ns: int
    sleep: Callable[[float], None] = time.sleep

    @property
    def archive(self) -> Path:
        return self.folder / "sds"

    def fill(self, now_ns: int) -> list[str]:
        """Which data are for others. Raises `DownloadError` where something is missing that may come another time, and
        `ConfigError` for what will not."""
        for folder in (self.archive, self.folder / "days"):
            folder.mkdir(parents=True, exist_ok=True)
        days = self._days(min(self.end_ns, now_ns))
        refused: list[str] = []
        missing: list[str] = []
        told_s = time.monotonic()
        for number, day in enumerate(days):
            try:
                self._patiently(partial(self._bring, day, now_ns))
            except RefusedError as error:
                refused.append(f"{day.name}: {error}")
            except DownloadError as error:
                missing.append(f"{day.name}: {error}")
            if len(missing) == MOST_MISSING:
                break
            if time.monotonic() - told_s > TELL_S:
                told_s = time.monotonic()
                log.info("%s: %d of %d station-days", self.service.url, number + 1, len(days))
        if missing:
            raise DownloadError("\n".join(missing))
        return refused

    def _days(self, end_ns: int) -> list[StationDay]:
        """That are still to be asked for."""
        self._patiently(self.service.check)
        wild = [pattern for pattern in self.patterns if is_open(pattern)]
        request = station_request(wild, self.begin_ns, end_ns)
        stations = self._patiently(lambda: self.service.stations(request)) if wild else set()
        days = list(station_days(self.patterns, stations, self.begin_ns, end_ns))
        if not days:
            raise ConfigError(f"{self.service.url}: it has none of these stations, or the time has not come yet")
        return [day for day in days if not self._mark(day).exists()]

    def _patiently(self, ask: Callable[[], T]) -> T:
        for number in range(TRIES - 1):
            try:
                return ask()
            except DownloadError as error:
                wait_s = error.after_s or WAIT_S * 2**number
                log.warning("%s; asked again in %g s", error, wait_s)
                self.sleep(wait_s)
        return ask()

    def _bring(self, day: StationDay, now_ns: int) -> None:
        content = self.service.records(day.request)
        if content is not None:
            for path, records in sorted_out(self._index(content), day):
                self._write(self.archive / path, records)
        if now_ns >= day.ends_ns + SETTLED_NS:
            self._mark(day).touch()

    def _index(self, content: bytes) -> Index:
        """Of an answer that is whole: a service may end it without a word where something goes wrong halfway."""
        answer = self.folder / "answer"
        answer.write_bytes(content)
        try:
            index = read_index(answer)
        except RecordError:
            raise DownloadError(f"{self.service.url}: the answer is no miniSEED") from None
        if index.faults or int(index.length.sum()) != len(content):
            raise DownloadError(f"{self.service.url}: the answer is cut off, or not all of it is miniSEED")
        return index

    def _write(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = self.folder / "part"
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)

    def _mark(self, day: StationDay) -> Path:
        return self.folder / "days" / day.name
