"""The pipeline over recordings instead of servers: the same stages, the same grid, the same alerts, no network.

`scan` is for what lies in memory; `run_through` for any files, with an outbox that tells where to go on after a stop, in
the way in which the daemon begins anew after `kill -9`. Nothing is published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from quake.alerts import Alert
from streamer.characteriser import load_characteriser
from streamer.composition import Scorer, compose
from streamer.config import Config
from streamer.file_source import FileSource, Item
from streamer.hooks import Fan, Hooks
from streamer.inventory import read_stations
from streamer.outbox import Outbox, Saved
from streamer.server.records import read
from streamer.source import decode


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
    collect = _Collect()
    with Outbox(":memory:") as outbox:
        hooks = Fan([collect, *extra_hooks])
        run_through(config, scorer, FileSource.of(items), outbox, Saved({}, None, {}), hooks)
    return collect.alerts


def run_through(
    config: Config,
    scorer: Scorer,
    source: FileSource,
    outbox: Outbox,
    saved: Saved,
    hooks: Hooks,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """To the end of the files, or until ``stopping``: ``source.stopped`` tells. ``outbox`` then holds the alerts, and where
    to go on; ``saved``: what it held before."""
    stations = read_stations(config.inventory, config.places)
    characteriser = load_characteriser(config, stations, scorer.grid)
    pipeline = compose(
        config,
        scorer,
        stations,
        source,
        outbox,
        saved,
        hooks,
        lambda: None,
        may_drop=False,
        characteriser=characteriser,
    )

    def ends() -> bool:
        if stopping():
            source.stop()
        return source.exhausted

    pipeline.run(ends)
    if not source.stopped:
        pipeline.finish()
