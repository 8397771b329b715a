"""Alerts tell the size of made earthquakes at stations of a known gain, live as scanned."""

from __future__ import annotations

from pathlib import Path

import pytest
from daemon_harness import Place, revisions
from made_ground import COUNTS_PER_M_S, earthquake, stations
from test_same_alerts import live

from quake.alerts import Alert, Kind
from quake.characterisation import NO_GAIN, OF_A_STATION
from streamer.composition import load_scorer
from streamer.config import load
from streamer.scan import scan
from streamer.server import Record
from streamer.source import decode

GAINS = "".join(f'[places."XX.S{n}"]\nlatitude = {48 + n / 20}\nlongitude = 11.0\n{{gain}}\n' for n in range(3))


class KnownPlace(Place):
    """The stations' gain stands in the configuration."""

    gain = f"counts_per_m_s = {COUNTS_PER_M_S}"

    def configure(self, *arguments: object, **named: object) -> Path:
        path = super().configure(*arguments, **named)  # type: ignore[arg-type]
        path.write_text(path.read_text() + GAINS.format(gain=self.gain))
        return path


def scanned(place: Place, records: list[Record]) -> list[Alert]:
    config = load(place.configure("seedlink://nowhere:1"))
    return scan(config, load_scorer(config), [decode(r.data, None, 2**61) for r in records])


def likeliest(alert: Alert) -> str:
    assert alert.characterisation is not None
    assert alert.characterisation.magnitude is not None
    return max(alert.characterisation.magnitude.items(), key=lambda one: one[1])[0]


@pytest.mark.parametrize(("magnitude", "distance_km", "size"), [(6.8, 80.0, "Large"), (2.5, 20.0, "Normal")])
def test_every_alert_tells_the_size(tmp_path: Path, magnitude: float, distance_km: float, size: str) -> None:
    alerts = scanned(KnownPlace(tmp_path, "redis://nowhere"), stations(earthquake(magnitude, distance_km)))
    events = [a for a in alerts if a.kind is Kind.EVENT]
    assert {len(a.stations) for a in events} == {3}, "all stations hear it, however large"
    assert {likeliest(a) for a in alerts} == {size}
    assert {a.characterisation and a.characterisation.unknown["azimuth"] for a in events} == {OF_A_STATION}


@pytest.mark.parametrize("point", ["quiet", "sensitive"])
def test_a_large_earthquake_is_heard_by_all_stations_at_every_operating_point(tmp_path: Path, point: str) -> None:
    config = KnownPlace(tmp_path, "redis://nowhere").configure("seedlink://nowhere:1")
    config.write_text(f'{config.read_text()}\n[trigger]\noperating_point = "{point}"\n')
    chosen = load(config)
    records = stations(earthquake(6.8, 80.0))
    alerts = scan(chosen, load_scorer(chosen), [decode(r.data, None, 2**61) for r in records])
    assert {len(a.stations) for a in alerts if a.kind is Kind.EVENT} == {3}


def test_live_tells_what_a_scan_tells(tmp_path: Path, valkey_url: str) -> None:
    records = stations(earthquake(4.5, 40.0))
    place = KnownPlace(tmp_path, valkey_url)
    alerts, expected = live(place, records, 20.0), scanned(place, records)
    assert revisions(alerts) == revisions(expected)
    sizes = {(a.id, a.revision): a.characterisation for a in expected}
    assert {(a.id, a.revision): a.characterisation for a in alerts} == sizes
    assert len({str(size) for size in sizes.values()}) > 3, "they grow surer, or less"


def test_without_a_gain_every_alert_says_why_it_tells_nothing(tmp_path: Path) -> None:
    place = KnownPlace(tmp_path, "redis://nowhere")
    place.gain = ""
    alerts = scanned(place, stations(earthquake(2.5, 20.0)))
    assert len(alerts) > 4
    for alert in alerts:
        assert alert.characterisation is not None
        assert (alert.characterisation.magnitude, alert.characterisation.unknown["magnitude"]) == (None, NO_GAIN)
