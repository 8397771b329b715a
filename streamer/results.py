"""What a scan found, as tables and QuakeML: the newest revision of each alert."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from quake.alerts import Alert, StationOnset
from quake.times import format_ns

Value = str | int | float | bool | None


def newest(alerts: Iterable[Alert]) -> list[Alert]:
    """The highest revision of each, in the order of onsets."""
    found: dict[str, Alert] = {}
    for alert in alerts:
        if alert.id not in found or found[alert.id].revision < alert.revision:
            found[alert.id] = alert
    return sorted(found.values(), key=lambda alert: (alert.onset, alert.kind, alert.id))


def row(alert: Alert) -> dict[str, Value]:
    """A line of a table; times as ISO 8601 in UTC."""
    return {name: value(alert) for name, (_, value) in COLUMNS.items()}


def _first(alert: Alert) -> StationOnset:
    return min(alert.stations, key=lambda station: station.onset)


def write_csv(alerts: Sequence[Alert], path: Path) -> None:
    """RFC 4180, UTF-8, a header line."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows(map(row, alerts))


def write_parquet(alerts: Sequence[Alert], path: Path) -> None:
    """The same columns. ImportError where pyarrow is not installed (``quake[archive]``)."""
    import pyarrow
    from pyarrow import parquet

    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, (kind, _) in COLUMNS.items()])
    parquet.write_table(pyarrow.Table.from_pylist([row(alert) for alert in alerts], schema), path)


def write_quakeml(alerts: Sequence[Alert], path: Path) -> None:
    """One catalogue of all of them."""
    from obspy.core.event import Catalog

    Catalog([event for alert in alerts for event in alert.to_quakeml()]).write(str(path), format="QUAKEML")


COLUMNS: dict[str, tuple[str, Callable[[Alert], Value]]] = {
    "id": ("string", lambda a: a.id),
    "kind": ("string", lambda a: str(a.kind)),
    "status": ("string", lambda a: str(a.status)),
    "revision": ("int64", lambda a: a.revision),
    "onset": ("string", lambda a: format_ns(a.onset)),
    "on_time": ("string", lambda a: format_ns(a.on_time)),
    "off_time": ("string", lambda a: None if a.off_time is None else format_ns(a.off_time)),
    "probability": ("float64", lambda a: a.probability),
    "stations": ("int64", lambda a: len(a.stations)),
    "source_ids": ("string", lambda a: " ".join(station.source_id for station in a.stations)),
    "latitude": ("float64", lambda a: _first(a).latitude),
    "longitude": ("float64", lambda a: _first(a).longitude),
    "complete": ("bool_", lambda a: a.complete),
    "model": ("string", lambda a: a.model.name),
    "model_version": ("string", lambda a: a.model.version),
    "model_sha256": ("string", lambda a: a.model.sha256),
}
"""Of a table: pyarrow's name of the type, and the value; places are those of the station with the first onset."""
WRITERS = {"csv": write_csv, "parquet": write_parquet, "quakeml": write_quakeml}
