"""Earthquakes as stations of a known gain record them: from the trainer's own sources, on its own noise."""

from __future__ import annotations

import numpy as np
import obspy

from streamer.server import Record
from streamer.server.records import pack
from trainer.data.synthetic import Earthquake, coloured_noise

RATE = 100
COUNTS_PER_M_S = 4e8
START = obspy.UTCDateTime(2020, 1, 1)
P_S, LENGTH_S = 60, 150


def earthquake(magnitude: float, distance_km: float) -> Earthquake:
    return Earthquake(
        magnitude=magnitude,
        stress_drop_pa=5e6,
        distance_km=distance_km,
        depth_km=10.0,
        back_azimuth_deg=40.0,
        incidence_deg=30.0,
        kappa_s=0.03,
        is_up=True,
        sideways_deg=30.0,
        coda=1.0,
    )


def stations(quake: Earthquake, count: int = 3, gain: float = COUNTS_PER_M_S) -> list[Record]:
    """Of stations one second of P apart, in the order in which a server could send them."""
    records: list[Record] = []
    for number in range(count):
        rng = np.random.default_rng(number)
        p = (P_S + number) * RATE
        s = p + round((quake.travel_s("S") - quake.travel_s("P")) * RATE)
        length = LENGTH_S * RATE
        ground = quake.motion(rng, {"P": p, "S": s}, length) + coloured_noise(rng, (-150.0, -130.0), length)
        for component, row in zip("ZNE", np.rint(gain * ground).astype(np.int32), strict=True):
            header = {"network": "XX", "station": f"S{number}", "channel": f"HH{component}"}
            records += pack(obspy.Trace(row, {**header, "sampling_rate": RATE, "starttime": START}), 1.0)
    return sorted(records, key=lambda r: (r.end_ns, r.stream_id))
