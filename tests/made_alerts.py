"""Alerts for the tests of the way out."""

from __future__ import annotations

import uuid
from typing import Any

from quake.alerts import Alert, Kind, Latency, Mode, ModelIdentity, StationOnset, Status
from streamer.outbox import Produced

NOW_NS = 1_700_000_000_000_000_000
MODEL = ModelIdentity(name="quake", version="1.0.0", sha256="0" * 64)


def alert(name: str = "a", revision: int = 0, kind: Kind = Kind.EVENT, **changes: Any) -> Alert:
    ident = str(uuid.uuid5(uuid.NAMESPACE_DNS, name))
    station = StationOnset(source_id="FDSN:XX_ABC__H_H", detection_id=ident, onset=NOW_NS, probability=0.9)
    fields: dict[str, Any] = {
        "id": ident,
        "revision": revision,
        "mode": Mode.LIVE,
        "kind": kind,
        "status": Status.UPDATE if revision else Status.OPEN,
        "onset": NOW_NS,
        "on_time": NOW_NS + 5,
        "stations": (station,),
        "probability": 0.9,
        "model": MODEL,
        "latency": Latency(data_s=1.0, processing_s=0.1),
        "complete": True,
        "created": NOW_NS,
    }
    return Alert(**{**fields, **changes})


def opening(name: str, k: int, hop_ns: int = 1_000_000_000) -> Produced:
    return Produced(alert(name, kind=Kind.DETECTION, on_time=k * hop_ns), k)
