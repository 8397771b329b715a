"""SDS archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import obspy

from streamer.server import Record


def write_sds(folder: Path, records: Sequence[Record]) -> Path:
    """One file a channel and day, as slarchive would have left it."""
    for record in records:
        start = obspy.UTCDateTime(ns=record.start_ns)
        channel = f"{record.network}.{record.station}.{record.location}.{record.channel}.D"
        place = folder / f"{start.year}" / record.network / record.station / f"{record.channel}.D"
        place.mkdir(parents=True, exist_ok=True)
        with (place / f"{channel}.{start.year}.{start.julday:03}").open("ab") as file:
            file.write(record.data)
    return folder
