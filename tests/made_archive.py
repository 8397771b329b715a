"""SDS archives, and a recording about midnight."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import obspy

from quake.alerts import Alert
from quake.times import NS
from streamer.server import Record
from streamer.server.records import pack

MIDNIGHT_NS = 1_577_836_800 * NS
EVENTS_S = (200, 445, 880)
SECONDS = 900


def quarter_hour() -> list[Record]:
    """Four stations about midnight, three events, one of them at the end."""
    made = [record for station in range(4) for code in ("Z" if station else "ZNE") for record in channel(station, code)]
    return sorted(made, key=lambda r: (r.end_ns, r.stream_id))


def channel(station: int, code: str) -> Iterator[Record]:
    """Noise at 20 Hz, louder from each event on, which comes to one station a tenth of a second after the other."""
    samples = np.random.default_rng([station, ord(code)]).standard_normal(SECONDS * 20) * 4
    for event_s in EVENTS_S:
        first = round((event_s + station / 10) * 20)
        time_s = np.arange(len(samples[first : first + 800])) / 20
        samples[first : first + 800] *= 1 + 25 * np.exp(-time_s / 12)
    start = obspy.UTCDateTime(ns=MIDNIGHT_NS - SECONDS // 2 * NS)
    header = {"network": "XX", "station": f"S{station:02d}", "channel": f"HH{code}", "sampling_rate": 20}
    return pack(obspy.Trace(np.rint(samples).astype(np.int32), {**header, "starttime": start}), 0.1)


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


def without_clocks(alerts: Sequence[Alert]) -> list[str]:
    """All that two scans of the same data tell alike: each has its own time of day."""
    return [alert.model_dump_json(exclude={"latency", "created"}) for alert in alerts]
