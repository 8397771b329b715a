"""The benchmark that counts false alarms: its counts are the daemon's own, and true earthquakes stay out of them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import obspy
import pytest

from benchmarks.decisions import Heard, associate, groups, listen, played
from benchmarks.false_alarms import main, settings_of
from quake.alerts import Kind, Status
from streamer.composition import Scorer, load_scorer
from streamer.config import Config, resolve
from streamer.demo import recordings
from streamer.scan import read_packets, scan
from streamer.stages import NS

NOW_NS = 1_800_000_000_000_000_000
FIRST_NS, SECOND_NS = 1274977473 * NS, 1274977650 * NS
"""16:24:33 and 16:27:30: both are detected at every station, and nothing else is."""


@pytest.fixture(scope="module")
def config() -> Config:
    waiting = {"coincidence": {"hold_s": 30.0}}  # as `associate`: no station is left behind
    return resolve({**settings_of(None, None), **waiting}, Path("test"))


@pytest.fixture(scope="module")
def scorer(config: Config) -> Scorer:
    return load_scorer(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """UH3, between whose earthquakes 10 s are missing, and UH4, which is said to be an aftershock sequence."""
    made = tmp_path_factory.mktemp("continuous")
    for station in ("UH3", "UH4"):
        stream = obspy.Stream()
        for path in recordings():
            stream += obspy.read(str(path)).select(station=station)
        if station == "UH3":
            gap = obspy.UTCDateTime("2010-05-27T16:26:20")
            stream = stream.slice(endtime=gap) + stream.slice(starttime=gap + 10)
        for trace in stream:
            trace.data = trace.data.astype(np.int32)
        stream.write(str(made / f"{station}.mseed"), format="MSEED")
    (made / "continuous.csv").write_text("file,character\nUH4.mseed,two aftershocks\n")
    return made


def test_counts_by_file_list_and_pictures(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told, pictures = tmp_path / "told.json", tmp_path / "pictures"
    assert main([str(folder), "--json", str(told), "--pictures", str(pictures)]) == 0
    noise, sequences, events, alarms, _ = (table["rows"] for table in json.loads(told.read_text())["tables"])
    assert [row["file"] for row in noise] == ["UH3.mseed", "all"]
    assert [row["file"] for row in sequences] == ["UH4.mseed", "all"]
    assert [row["detections"] for row in (*noise, *sequences)] == [2, 2, 2, 2]
    # A window of 20.8 s each second: the gap takes those that end in its 10 s, or lack more than the bridged 2 s.
    assert 28 <= (sequences[0]["station-hours"] - noise[0]["station-hours"]) * 3600 <= 31
    days = noise[0]["station-hours"] / 24
    rate = noise[0]["a station-day"]
    assert [rate[key] * days for key in ("value", "low", "high")] == pytest.approx([2, 0.2422, 7.2247], abs=1e-3)
    assert [row["onset"][11:16] for row in alarms] == ["16:24", "16:27"]
    assert all(row["probability"] > 0.9 and 5 < row["lasted, s"] < 40 for row in alarms)
    assert [(row["stations"], row["at least"], row["events"]) for row in events] == [("BW.UH3, BW.UH4", 2, 2)]
    drawn = sorted(path.name[:19] for path in pictures.iterdir())
    assert drawn == ["UH3_2010-05-27T1624", "UH3_2010-05-27T1627"]
    assert all(path.stat().st_size > 20_000 for path in pictures.iterdir())
    assert "| UH3.mseed | BW.UH3 |" in capsys.readouterr().out


@pytest.mark.drill
def test_the_daemon_as_a_process_decides_the_same(folder: Path, config: Config, scorer: Scorer) -> None:
    heard = listen(folder / "UH4.mseed", "", config, scorer)
    assert sorted(closes for _, closes in heard.decided) == [False, False, True, True]
    assert played(heard.file, settings_of(None, None)) == heard.decided


def test_stations_joined_afterwards_make_the_events_of_a_scan_of_all(config: Config, scorer: Scorer) -> None:
    together = Heard(Path("all"), "")
    alerts = scan(config, scorer, read_packets(recordings(), NOW_NS), [together])
    apart = tuple(
        Heard(Path(subject), "", {subject: series}, [d for d in together.detections if d.subject == subject])
        for subject, series in reversed(together.scores.items())
    )
    assert len(apart) == 4
    ((*group,),) = groups(apart)
    joined = associate(tuple(group), 3, config, scorer)
    events = {alert.id for alert in alerts if alert.kind is Kind.EVENT and alert.status is Status.OPEN}
    assert len(events) == 2
    assert {event.id for event in joined.events} == events
    assert [
        round((event.onset_ns - at_ns) / NS) for event, at_ns in zip(joined.events, (FIRST_NS, SECOND_NS), strict=True)
    ] == [0, 0]
    counts = Counter(k for series in together.scores.values() for k in series)
    assert joined.hours * 3600 == pytest.approx(sum(count >= 3 for count in counts.values()))
    later = replace(apart[0], scores={"FDSN:BW_LATE__S_H": {max(counts) + 1: 0.0}})
    assert [len(one) for one in groups([later, *apart])] == [4, 1]


def test_what_cannot_be_measured_is_said(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none")]) == 0
    assert "no recordings at" in capsys.readouterr().out
    assert main([str(folder), "--only", "XX*"]) == 2
    assert "no file XX* that is *.mseed" in capsys.readouterr().err
    assert main([str(folder), "--operating-point", "loud"]) == 2
    assert "trigger.operating_point" in capsys.readouterr().err
    (tmp_path / "broken.mseed").write_bytes(b"no recording")
    assert main([str(tmp_path)]) == 2
    assert "broken.mseed" in capsys.readouterr().err
