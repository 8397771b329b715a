"""What a scan found, as tables and QuakeML: the newest revision of each alert."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from quake.alerts import Alert
from quake.times import format_ns

Row = dict[str, str | int | float | bool | None]


def newest(alerts: Iterable[Alert]) -> list[Alert]:
    """The highest revision of each, in the order of onsets."""
    found: dict[str, Alert] = {}
    for alert in alerts:
        if alert.id not in found or found[alert.id].revision < alert.revision:
            found[alert.id] = alert
    return sorted(found.values(), key=lambda alert: (alert.onset, alert.kind, alert.id))


def row(alert: Alert) -> Row:
    """A line of a table; times as ISO 8601 in UTC."""
    first = min(alert.stations, key=lambda station: station.onset)
    return {
        "id": alert.id,
        "kind": str(alert.kind),
        "status": str(alert.status),
        "revision": alert.revision,
        "onset": format_ns(alert.onset),
        "on_time": format_ns(alert.on_time),
        "off_time": None if alert.off_time is None else format_ns(alert.off_time),
        "probability": alert.probability,
        "stations": len(alert.stations),
        "source_ids": " ".join(station.source_id for station in alert.stations),
        "latitude": first.latitude,
        "longitude": first.longitude,
        "complete": alert.complete,
        "model": alert.model.name,
        "model_version": alert.model.version,
        "model_sha256": alert.model.sha256,
    }


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

    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
    parquet.write_table(pyarrow.Table.from_pylist([row(alert) for alert in alerts], schema), path)


def write_quakeml(alerts: Sequence[Alert], path: Path) -> None:
    """One catalogue of all of them."""
    from obspy.core.event import Catalog

    Catalog([event for alert in alerts for event in alert.to_quakeml()]).write(str(path), format="QUAKEML")


COLUMNS = {
    "id": "string",
    "kind": "string",
    "status": "string",
    "revision": "int64",
    "onset": "string",
    "on_time": "string",
    "off_time": "string",
    "probability": "float64",
    "stations": "int64",
    "source_ids": "string",
    "latitude": "float64",
    "longitude": "float64",
    "complete": "bool_",
    "model": "string",
    "model_version": "string",
    "model_sha256": "string",
}
"""Of a table, with pyarrow's names of their types."""
WRITERS = {"csv": write_csv, "parquet": write_parquet, "quakeml": write_quakeml}
