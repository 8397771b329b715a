"""The pipeline over a recording in memory instead of servers: the same stages, the same grid, the same alerts, no network.

One process, one pass, as the daemon does it: what `streamer.scanning` of archives is held to. Nothing is published.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from quake.alerts import Alert
from streamer.characteriser import load_characteriser
from streamer.composition import Scorer, compose
from streamer.config import Config
from streamer.file_source import FileSource, Item
from streamer.hooks import Fan, Hooks
from streamer.inventory import Stations, read_stations
from streamer.outbox import Outbox, Saved
from streamer.pipeline import Pipeline
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
    collect, source = _Collect(), FileSource.of(items)
    with Outbox(":memory:") as outbox:
        hooks = Fan([collect, *extra_hooks])
        stations = read_stations(config.inventory, config.places)
        pipeline = offline(config, scorer, stations, source, outbox, Saved({}, None, {}), hooks)
        pipeline.run(lambda: source.exhausted)
        pipeline.finish()
    return collect.alerts


def offline(
    config: Config, scorer: Scorer, stations: Stations, source: FileSource, outbox: Outbox, saved: Saved, hooks: Hooks
) -> Pipeline:
    """The stages without a publisher, and never in a hurry."""
    characteriser = load_characteriser(config, stations, scorer.grid)
    return compose(
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
