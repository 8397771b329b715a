"""The pipeline over recordings instead of servers: the same stages, the same grid, the same alerts, no network.

Alerts are returned, not published.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from quake.alerts import Alert
from streamer.composition import Scorer, compose
from streamer.config import Config
from streamer.hooks import Fan, Hooks
from streamer.inventory import read_stations
from streamer.outbox import Outbox, Saved
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
    stations = read_stations(config.inventory, config.places)
    with Outbox(":memory:") as outbox:
        pipeline = compose(
            config,
            scorer,
            stations,
            source,
            outbox,
            Saved({}, None, {}),
            Fan([collect, *extra_hooks]),
            lambda: None,
            may_drop=False,
        )
        pipeline.run(lambda: source.exhausted)
    return collect.alerts
