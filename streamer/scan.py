"""The pipeline over recordings instead of servers: the same stages, the same grid, the same alerts, no network.

`scan` is for what lies in memory, `scan_archive` for archives: it keeps its state in an outbox and goes on where it was stopped,
in the way in which the daemon begins anew after `kill -9`. Alerts are returned, not published.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from quake.alerts import Alert
from streamer.archive import ArchiveSource
from streamer.composition import Scorer, compose
from streamer.config import Config
from streamer.hooks import Fan, Hooks
from streamer.inventory import read_stations
from streamer.outbox import Outbox, Saved
from streamer.pipeline import Pipeline, Source
from streamer.server.records import read
from streamer.source import decode
from streamer.stages import Packet, Refused, Subscribed

Item = Packet | Refused | Subscribed


class FileSource:
    """Packets of recordings in the order in which their last samples were taken."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._items: Iterator[Item] = iter(items)
        self.queued = 0
        self.exhausted = False
        self._expected: dict[str, set[str]] = defaultdict(set)
        for item in items:
            if isinstance(item, Packet):
                self._expected[item.subject].add(item.component)

    def take(self, limit: int, timeout_s: float) -> list[Item]:
        taken = [item for _, item in zip(range(limit), self._items, strict=False)]
        self.exhausted = not taken
        return taken

    def expected(self) -> Mapping[str, frozenset[str]]:
        return {subject: frozenset(codes) for subject, codes in self._expected.items()}


class _Collect(Hooks):
    def __init__(self) -> None:
        self.alerts: list[Alert] = []

    def committed(self, alerts: list[Alert]) -> None:
        self.alerts += alerts


def read_packets(files: Sequence[Path], received_ns: int) -> list[Item]:
    """All records of files that ObsPy reads. Raises `streamer.server.RecordError`."""
    return [decode(record.data, None, received_ns) for record in read(files)]


def scan(config: Config, scorer: Scorer, items: Sequence[Item], extra_hooks: Sequence[Hooks] = ()) -> list[Alert]:
    """The alerts of a recording, in the order in which they were decided."""
    source, collect = FileSource(items), _Collect()
    with Outbox(":memory:") as outbox:
        pipeline = _pipeline(config, scorer, source, outbox, Saved({}, None, {}), Fan([collect, *extra_hooks]))
        pipeline.run(lambda: source.exhausted)
        pipeline.finish()
    return collect.alerts


def scan_archive(
    config: Config,
    scorer: Scorer,
    outbox: Outbox,
    make_source: Callable[[Saved], ArchiveSource],
    hooks: Hooks,
    stopping: Callable[[], bool] = lambda: False,
) -> ArchiveSource:
    """Scan to the end of the archive, or until ``stopping``; ``outbox`` then holds the alerts, and where to go on.

    Whether it came to the end, and what could not be read, the source tells that is returned.
    """
    saved = outbox.load(scorer.fingerprint)
    source = make_source(saved)
    pipeline = _pipeline(config, scorer, source, outbox, saved, hooks)

    def ends() -> bool:
        if stopping():
            source.stop()
        return source.exhausted

    pipeline.run(ends)
    if not source.stopped:
        pipeline.finish()
    return source


def _pipeline(config: Config, scorer: Scorer, source: Source, outbox: Outbox, saved: Saved, hooks: Hooks) -> Pipeline:
    stations = read_stations(config.inventory, config.places)
    return compose(config, scorer, stations, source, outbox, saved, hooks, lambda: None, may_drop=False)
