"""A catalogue with miniSEED, and ObsPy's own objects: what is cut out, what becomes of picks, gains and places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obspy import Inventory, Stream, Trace, UTCDateTime
from obspy.core.event import (
    Arrival,
    Catalog,
    Event,
    Magnitude,
    Origin,
    Pick,
    QuantityError,
    ResourceIdentifier,
    WaveformStreamID,
)
from obspy.core.inventory import Channel, InstrumentSensitivity, Network, Response, Site, Station

from quake.data.seisbench import DataError
from trainer.data.arrivals import arrivals_of
from trainer.data.catalogue import Catalogue, Cutting, records_from_events
from trainer.data.record import LEAD_S
from trainer.data.sources import Quality, read_records
from trainer.data.waveforms import Span, apart, chunks

T0 = UTCDateTime("2024-05-01T00:00:00")
LEAD = LEAD_S * 100
GAIN = 2.5e8


def stream(
    station: str = "AAA", codes: str = "ZNE", hours: float = 1.0, rate_hz: float = 100.0, **stats: Any
) -> Stream:
    """Noise with an offset; each sample's value also tells its component: offset 1e6, 2e6, 3e6."""
    rng = np.random.default_rng(sum(map(ord, station)))
    traces = []
    for number, code in enumerate(codes, 1):
        samples = (1000 * rng.standard_normal(round(hours * 3600 * rate_hz)) + 1e6 * number).astype(np.int32)
        header = {
            "network": "XX",
            "station": station,
            "channel": f"HH{code}",
            "starttime": T0,
            "sampling_rate": rate_hz,
        }
        traces.append(Trace(samples, {**header, **stats}))
    return Stream(traces)


def pick(station: str, phase: str, at_s: float, hint: bool = True, **others: Any) -> Pick:
    return Pick(
        time=T0 + at_s,
        phase_hint=phase if hint else None,
        waveform_id=WaveformStreamID(network_code="XX", station_code=station),
        **others,
    )


def event(name: str, origin_s: float, *picks: Pick, magnitude: float = 5.2) -> Event:
    origin = Origin(time=T0 + origin_s, latitude=0.0, longitude=1.0, depth=5e3)
    origin.time_errors = QuantityError()
    return Event(
        resource_id=ResourceIdentifier(f"smi:test/{name}"),
        picks=list(picks),
        origins=[origin],
        magnitudes=[Magnitude(mag=magnitude)],
    )


def inventory(station: str = "AAA", units: str = "M/S", gain: float = GAIN) -> Inventory:
    """A station on the equator, a degree west of the events."""
    channels = [
        Channel(
            f"HH{code}",
            "",
            0.0,
            0.0,
            0.0,
            0.0,
            response=Response(
                instrument_sensitivity=InstrumentSensitivity(gain * number, 1.0, units, "COUNTS"),
            ),
        )
        for number, code in enumerate("ZNE", 1)
    ]
    site = Station(station, 0.0, 0.0, 0.0, channels=channels, site=Site("somewhere"))
    return Inventory([Network("XX", stations=[site])])


def test_an_event_is_cut_around_p_at_each_station() -> None:
    quake = event("a", 590, pick("AAA", "P", 600), pick("AAA", "S", 612), pick("BBB", "Pg", 603))
    waves = stream() + stream("BBB", "Z12") + stream("CCC")
    first, second = records_from_events([(quake, waves)], inventory()).records
    assert (first.name, second.name) == (
        "events.XX.AAA..HH.20240501T001000.000000",
        "events.XX.BBB..HH.20240501T001003.000000",
    )
    assert first.samples.shape == (3, LEAD + 12001)
    assert (first.p, first.s, second.p, second.s) == (LEAD + 6000, LEAD + 7200, LEAD + 6000, -1)
    assert first.source_id == second.source_id == "smi:test/a"
    expected = waves[1].data[54000:66001] - waves[1].data[54000:59900].mean()
    np.testing.assert_allclose(first.samples[1, LEAD:], expected, atol=0.1)


def test_picks_that_arrivals_name_count_and_hints_where_arrivals_are_silent() -> None:
    p, s, later = pick("AAA", "", 600, hint=False), pick("AAA", "", 610, hint=False), pick("AAA", "P", 620)
    quake = event("a", 590, p, s, later, pick("BBB", "Lg", 600), pick("BBB", "PcP", 600))
    quake.origins[0].arrivals = [Arrival(pick_id=p.resource_id, phase="Pn"), Arrival(pick_id=s.resource_id, phase="Sg")]
    (arrivals,) = arrivals_of(quake)
    assert (arrivals.station, arrivals.p, arrivals.s) == ("AAA", T0 + 600, T0 + 610)
    rejected = event("b", 590, pick("AAA", "P", 600, evaluation_status="rejected"))
    assert arrivals_of(rejected) == ()


def test_size_is_known_where_the_gain_is_and_samples_are_metres_a_second() -> None:
    quake = event("a", 590, pick("AAA", "P", 600))
    counts = records_from_events([(quake, stream())], inventory()).records[0]
    (metres,) = records_from_events([(quake, stream())], inventory(), Cutting(remove_sensitivity=True)).records
    assert np.isnan(counts.magnitude)
    assert metres.magnitude == 5.2
    for row in range(3):
        apart = metres.samples[row] - counts.samples[row] / (GAIN * (row + 1))
        assert np.ptp(apart) < 2e-12
        assert abs(apart.mean()) < 2**-16 * np.abs(metres.samples[row]).max()  # the offset is taken off to so much


@pytest.mark.parametrize("known", [None, inventory("BBB"), inventory(units="M/S**2"), inventory(gain=0.0)])
def test_without_a_gain_units_are_not_mixed(known: Inventory | None) -> None:
    quake = event("a", 590, pick("AAA", "P", 600))
    collection = records_from_events([(quake, stream())], known, Cutting(remove_sensitivity=True))
    assert [item.reason for item in collection.left_out] == ["no_gain"]


def test_the_event_lies_in_the_east() -> None:
    """A degree along the equator: 111.32 km on the ellipsoid."""
    quake = event("a", 590, pick("AAA", "P", 600))
    (record,) = records_from_events([(quake, stream())], inventory()).records
    assert record.back_azimuth_deg == pytest.approx(90.0)
    assert record.distance_km == pytest.approx(111.319, abs=0.001)
    (turned,) = records_from_events([(quake, stream(codes="Z12"))], inventory()).records
    assert np.isnan(turned.back_azimuth_deg)
    assert turned.distance_km == record.distance_km
    (nowhere,) = records_from_events([(quake, stream())]).records
    assert np.isnan([nowhere.back_azimuth_deg, nowhere.distance_km]).all()


def test_a_vertical_alone_has_zeros_beside_it() -> None:
    (record,) = records_from_events([(event("a", 590, pick("AAA", "P", 600)), stream(codes="Z"))]).records
    assert record.samples[0].any()
    assert not record.samples[1:].any()


def test_what_has_no_waveform_or_no_p_is_listed() -> None:
    waves = stream()
    waves = waves.slice(T0, T0 + 500) + waves.slice(T0 + 700, T0 + 3600)
    quake = event("a", 590, pick("AAA", "P", 600), pick("BBB", "P", 600), pick("CCC", "S", 600))
    collection = records_from_events([(quake, waves + stream("CCC"))], None, None, Quality())
    assert [(item.reason, item.detail.split(",")[0]) for item in collection.left_out] == [
        ("no_waveform", "XX.AAA..HH has a gap at P"),
        ("no_waveform", "the station is picked"),
        ("no_p", "S is picked"),
    ]


def test_a_gap_after_p_ends_the_record_and_a_neighbour_makes_it_crowded() -> None:
    waves = stream()
    waves = waves.slice(T0, T0 + 640) + waves.slice(T0 + 650, T0 + 3600)
    pairs = [(event("a", 590, pick("AAA", "P", 600)), waves), (event("b", 620, pick("AAA", "P", 630)), waves)]
    first, second = records_from_events(pairs).records
    assert first.samples.shape[1] == LEAD + 10001
    assert (first.is_crowded, second.is_crowded) == (True, True)
    assert not records_from_events(pairs[:1]).records[0].is_crowded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two hours of two stations in a file for each hour, at 100 and 200 Hz, with ten earthquakes."""
    (tmp_path / "mseed").mkdir()
    for station, rate_hz in (("AAA", 100.0), ("BBB", 200.0)):
        whole = stream(station, hours=2, rate_hz=rate_hz)
        for hour in range(2):
            part = whole.slice(T0 + 3600 * hour, T0 + 3600 * (hour + 1) - 1 / rate_hz)
            part.write(str(tmp_path / "mseed" / f"{station}.{hour}"), format="MSEED")
    (tmp_path / "mseed" / "readme.txt").write_text("not waveforms")
    quakes = [
        event(f"q{n}", 295 + 650 * n, pick("AAA", "P", 300 + 650 * n), pick("BBB", "P", 302 + 650 * n))
        for n in range(10)
    ]
    Catalog(quakes).write(str(tmp_path / "catalogue.xml"), format="QUAKEML")
    inventory().write(str(tmp_path / "stations.xml"), format="STATIONXML")
    return tmp_path


def source(**settings: Any) -> Catalogue:
    paths = {"path": "mseed", "catalogue": "catalogue.xml", "inventory": "stations.xml"}
    return Catalogue.model_validate({"type": "miniseed", **paths, **settings})


def test_a_folder_is_read_across_files_and_divided_by_earthquake(folder: Path) -> None:
    train = read_records([source()], "train", Quality(), folder)
    dev = read_records([source()], "dev", Quality(), folder)
    events = [record for record in (*train.records, *dev.records) if record.is_event]
    assert len(events) == 20
    assert sum(record.is_event for record in dev.records) == 4
    assert not {r.source_id for r in train.records} & {r.source_id for r in dev.records if r.is_event} - {""}
    across = next(record for record in events if "T005910" in record.name and "AAA" in record.name)
    assert (across.p, across.samples.shape[1]) == (LEAD + 6000, LEAD + 12001), "a record over the turn of the hour"
    assert all(abs(record.p - LEAD - 6000) <= 1 for record in events)
    assert set(train.hashes) == {
        *(f"mseed/{s}.{h}" for s in ("AAA", "BBB") for h in (0, 1)),
        "catalogue.xml",
        "stations.xml",
    }


def test_noise_keeps_its_distance_from_every_pick_and_origin(folder: Path) -> None:
    found = source(noise_per_event=100.0, noise_s=60.0).find(folder).finds
    noise = [find.record for find in found if not find.record.is_event]
    assert {record.origin for record in noise} == {"catalogue_quiet"}
    starts = np.array([UTCDateTime(record.name.split("HH.")[1].replace("T", " ")) - T0 for record in noise])
    origins = 295 + 650 * np.arange(10)[:, None]
    assert len(noise) > 20
    assert not ((starts + 60 > origins - 120) & (starts < origins + 240)).any()
    (few,) = {len(source(noise_per_event=0.5).find(folder).finds)}
    assert few == 20 + 10


def test_noise_keeps_its_distance_from_a_pick_far_from_any_origin(folder: Path) -> None:
    Catalog([event("far", 300, pick("AAA", "P", 3000))]).write(str(folder / "far.xml"), format="QUAKEML")
    found = source(catalogue="far.xml", noise_per_event=1000.0, noise_s=60.0).find(folder).finds
    starts = [UTCDateTime(find.record.name.split("HH.")[1].replace("T", " ")) - T0 for find in found[1:]]
    assert len(starts) > 100
    assert all(start + 60 <= 2880 or start >= 3120 for start in starts)
    assert all(start + 60 <= 180 or start >= 540 for start in starts)


def test_files_that_are_not_what_they_should_be_are_named(folder: Path) -> None:
    (folder / "broken.xml").write_text("<nothing/>")
    with pytest.raises(DataError, match=r"broken\.xml: cannot be read as QuakeML"):
        source(catalogue="broken.xml").find(folder)
    with pytest.raises(DataError, match=r"nowhere\.xml: cannot be read as StationXML"):
        source(inventory="nowhere.xml").find(folder)
    (folder / "empty").mkdir()
    with pytest.raises(DataError, match="empty: holds no miniSEED file"):
        source(path="empty").find(folder)
    (folder / "empty" / "x.mseed").write_bytes(b"000001D broken")
    with pytest.raises(DataError, match=r"x\.mseed: cannot be read as miniSEED"):
        source(path="empty").find(folder)


def groups_of(folder: Path, *quakes: Event, **settings: Any) -> list[str]:
    """Of the finds of earthquakes, in their order."""
    Catalog(list(quakes)).write(str(folder / "own.xml"), format="QUAKEML")
    finds = source(catalogue="own.xml", noise_per_event=0, **settings).find(folder).finds
    return [find.group.removeprefix("smi:test/") for find in finds]


def test_earthquakes_in_each_others_records_are_not_parted(folder: Path) -> None:
    again = event("again", 295, pick("AAA", "P", 300.4))  # the first one, as another agency has it
    after = event("after", 395, pick("BBB", "P", 419), pick("AAA", "P", 5000))  # 118 s after the first one's, at BBB
    first = event("first", 295, pick("AAA", "P", 300), pick("BBB", "P", 301))
    apart = event("apart", 500, pick("BBB", "P", 540))  # 121 s after
    other = event("other", 295, pick("AAA", "P", 5100))  # 100 s after that of `after`
    quakes = again, after, first, apart, other
    assert groups_of(folder, *quakes) == ["again", "again", "again", "again", "again", "apart", "again"]
    alone = ["again", "after", "after", "first", "first", "apart", "other"]
    assert groups_of(folder, *quakes, before_s=0.1, after_s=0.1) == alone


def test_picks_that_name_no_station_are_none(folder: Path) -> None:
    bare = Pick(time=T0 + 300, phase_hint="P")
    lost = event("lost", 295, bare)
    lost.origins[0].arrivals = [Arrival(phase="P")]
    timeless = event("timeless", 600)
    timeless.origins[0].time = None
    assert groups_of(folder, lost, timeless, event("whole", 995, pick("AAA", "P", 1000))) == ["whole"]
    with pytest.raises(DataError, match=r"own\.xml: no P is picked at any station"):
        groups_of(folder, lost, event("late", 995, pick("AAA", "S", 1000)))


@settings(max_examples=100, deadline=None)
@given(
    busy=st.lists(st.tuples(st.integers(-50, 1050), st.integers(0, 300)), max_size=8),
    length=st.integers(10, 300),
)
def test_what_is_apart_and_what_is_busy_make_the_whole(busy: list[tuple[int, int]], length: int) -> None:
    times = [(T0 + start, T0 + start + duration) for start, duration in busy]
    free = list(apart(times, Span(T0, T0 + 1000)))
    taken = np.zeros(1000, bool)
    for start, duration in busy:
        taken[max(start, 0) : max(start + duration, 0)] = True
    kept = np.zeros(1000, bool)
    for span in free:
        kept[int(span.start - T0) : int(span.end - T0)] = True
    np.testing.assert_array_equal(kept, ~taken)
    parts = [part for span in free for part in chunks(span, length, length)]
    assert all(part.duration_s == pytest.approx(length) for part in parts)
    assert len(parts) == sum(int(span.duration_s) // length for span in free)
