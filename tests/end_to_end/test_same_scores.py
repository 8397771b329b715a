"""One record, one score for each of its windows: as the trainer evaluates, as a scan reads files, as the daemon hears it live."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import obspy
import pandas as pd
import pytest
from daemon_harness import Place
from numpy.typing import NDArray
from scipy.special import expit, logit
from scores_daemon import WriteScores
from test_same_alerts import ends

from quake.alerts import Kind
from quake.data.seisbench import SeisBenchDataset
from quake.times import parse_ns
from streamer.composition import Scorer, load_scorer
from streamer.config import load
from streamer.demo import recordings
from streamer.grid import Grid
from streamer.scan import read_packets, scan
from streamer.server import ReplayServer
from streamer.stages import NS
from trainer.assessment import Question, evaluate
from trainer.data.record import LEAD_S, RATE_HZ
from trainer.evaluation.scoring import HISTORY_S

WINDOWS = Path(__file__).resolve().parents[3] / "shared" / "data" / "windows"
DAEMON = (sys.executable, str(Path(__file__).with_name("scores_daemon.py")))
SAME = 1e-4
"""Largest difference of a probability; measured up to 1.2e-5. Four digits of it stand in an alert, which takes half of this."""
UNSURE = 7.0
"""Log-odds up to which a float32 probability has five digits of what is missing to one."""
DAY_NS = parse_ns("2026-01-01T00:00:00Z")
FILTER_S = 0.2
"""Of a record of 50 Hz, at either end: the trainer continues it in a line there, the daemon waits for more."""

Scores = Mapping[tuple[str, int], float]
"""(Station, end of the window in nanoseconds) -> probability, or log-odds."""


@dataclass(frozen=True, slots=True)
class Recording:
    """As a data set holds it: raw, with whatever offset it has."""

    station: str
    rate_hz: float
    samples: NDArray[np.float32]
    """(3, N) Z N E; zeros where a component was not recorded."""
    p: float = np.nan
    """Index of P; NaN for noise."""


def obspy_recordings() -> list[Recording]:
    """UH3 has three components at 50 Hz, UH4 a vertical at 100 Hz."""
    made = []
    for station, rate_hz in (("UH3", 50.0), ("UH4", 100.0)):
        samples = np.zeros((3, round(220 * rate_hz)), np.float32)
        for path in recordings():
            trace = obspy.read(str(path))[0]
            if trace.stats.station == station:
                samples["ZNE".index(trace.stats.channel[-1])] = trace.data[: samples.shape[1]]
        made.append(Recording(station, rate_hz, samples))
    return made


def dev_recordings() -> list[Recording]:
    """Of each source of dev the first earthquake with the longest quiet before P, and the first noise."""
    data = SeisBenchDataset(WINDOWS, "ZNE", assumed_order="ZNE")
    table = data.metadata
    table = table[(table["split"] == "dev") & (table["trace_npts"] >= 40 * RATE_HZ) & (table["noise_suspect"] != True)]  # noqa: E712
    longest = table.sort_values("trace_p_arrival_sample", ascending=False, kind="stable")
    chosen = longest.groupby(["source_dataset", "trace_category"], sort=True).head(1)
    return [
        Recording(f"S{number:02d}", RATE_HZ, data[int(row)].samples, float(p))
        for number, (row, p) in enumerate(chosen["trace_p_arrival_sample"].items())
    ]


def begin_ns(scorer: Scorer) -> int:
    """When recordings begin, so that the windows which the trainer scores lie on the daemon's grid."""
    offset = (scorer.grid.window + round(HISTORY_S * RATE_HZ)) % scorer.grid.hop
    return DAY_NS + offset * NS // RATE_HZ


def write_set(folder: Path, chosen: Sequence[Recording]) -> Path:
    """In SeisBench's format."""
    folder.mkdir()
    with h5py.File(folder / "waveforms.hdf5", "w") as archive:
        for one in chosen:
            archive[f"data/{one.station}"] = one.samples
    columns = {
        "trace_name": [one.station for one in chosen],
        "trace_category": ["noise" if np.isnan(one.p) else "earthquake_local" for one in chosen],
        "trace_sampling_rate_hz": [one.rate_hz for one in chosen],
        "trace_p_arrival_sample": [one.p for one in chosen],
        "split": "dev",
    }
    pd.DataFrame(columns).to_csv(folder / "metadata.csv", index=False)
    return folder


def write_miniseed(path: Path, chosen: Sequence[Recording], start_ns: int) -> Path:
    """Whole numbers as integers (Steim2), others as float32; a component that was not recorded has no channel."""
    stream = obspy.Stream()
    for one in chosen:
        whole = bool((one.samples == np.round(one.samples)).all())
        for component, samples in zip("ZNE", one.samples, strict=True):
            header = {
                "network": "XX",
                "station": one.station,
                "channel": f"HH{component}",
                "sampling_rate": one.rate_hz,
                "starttime": obspy.UTCDateTime(ns=start_ns),
            }
            if samples.any():
                stream += obspy.Trace(samples.astype(np.int32) if whole else samples, header)
    for trace in stream:
        trace.write(str(path.with_name(f"{trace.id}.mseed")), format="MSEED")
    path.write_bytes(b"".join(file.read_bytes() for file in sorted(path.parent.glob("XX.*.mseed"))))
    return path


def evaluated(scorer: Scorer, folder: Path, start_ns: int) -> Scores:
    """Log-odds of the windows that hold nothing of a record's made lead."""
    hop_s = scorer.grid.hop / scorer.grid.rate
    table = evaluate(scorer.model, Question(folder, windows=1, hop_s=hop_s)).scores
    assert table is not None
    end = np.rint(table["time_s"] * RATE_HZ).astype(int) + 1 - LEAD_S * RATE_HZ  # index just after the window
    return {
        (str(name), start_ns + int(index) * NS // RATE_HZ): float(score)
        for name, index, score in zip(table["trace_name"], end, table["score"], strict=True)
        if index >= scorer.grid.window
    }


def parsed(text: str, grid: Grid) -> Scores:
    """What `WriteScores` wrote; each window once."""
    rows = [line.split(",") for line in text.splitlines()]
    scores = {(subject.split("_")[1], grid.end_ns(int(k))): float(probability) for subject, k, probability in rows}
    assert len(scores) == len(rows)
    return scores


def scanned(config: Path, scorer: Scorer, file: Path) -> Scores:
    written = io.StringIO()
    scan(load(config), scorer, read_packets([file], DAY_NS + 3600 * NS), [WriteScores(written)])
    return parsed(written.getvalue(), scorer.grid)


def heard_live(place: Place, grid: Grid, file: Path) -> Scores:
    """By the daemon as a process, from our SeedLink server."""
    written = place.folder / "scores.csv"
    with (
        ReplayServer([str(file)], speed=0.0) as server,
        place.start(place.configure(server.address), DAEMON, [str(written)]) as life,
    ):
        life.wait_newest(ends(server.records), 120.0)
        assert life.stop() == 0
    return parsed(written.read_text(), grid)


def expected_keys(chosen: Sequence[Recording], keys: Scores, start_ns: int, grid: Grid) -> set[tuple[str, int]]:
    """Those of the trainer's windows that the daemon can fill without knowing what comes before and after the record."""
    kept = set()
    for one in chosen:
        margin_ns = 0 if one.rate_hz == RATE_HZ else int(FILTER_S * NS)
        first_ns = start_ns + margin_ns + grid.window_ns
        last_ns = start_ns + int(one.samples.shape[1] / one.rate_hz * NS) - margin_ns
        kept |= {key for key in keys if key[0] == one.station and first_ns <= key[1] <= last_ns}
    return kept


@dataclass(frozen=True, slots=True)
class Measured:
    """Scores of one set of recordings, in three ways."""

    grid: Grid
    on: float
    wanted: frozenset[tuple[str, int]]
    """The windows that all three are to have scored, and no others."""
    evaluated: Scores
    log_odds: Scores
    """As evaluated."""
    others: Mapping[str, Scores]
    """By scan, and live."""
    told: Scores
    """In the traces of alerts that left the machine: four digits."""

    def check(self, *stations: str) -> None:
        """That those of the stations are the same."""
        wanted = {key for key in self.wanted if key[0] in stations}
        assert {station for station, _ in wanted} == set(stations)
        for name, scores in self.others.items():
            assert {key for key in scores if key[0] in stations} == wanted
            self._tell(name, wanted, scores)
            assert not {key: (self.evaluated[key], scores[key]) for key in wanted if self._apart(key, scores) > SAME}
        told = {key for key in self.told if key[0] in stations}
        assert len(told) >= 10
        assert not {key: self.told[key] for key in told if self._apart(key, self.told) > SAME}

    def _apart(self, key: tuple[str, int], scores: Scores) -> float:
        return abs(self.evaluated[key] - scores[key])

    def _tell(self, name: str, wanted: set[tuple[str, int]], scores: Scores) -> None:
        """How many windows, how near, and in log-odds too where a float32 probability still tells them."""
        unsure = [key for key in wanted if abs(self.log_odds[key]) < UNSURE]
        far = max(abs(self.log_odds[key] - logit(scores[key])) for key in unsure)
        alarming = sum(scores[key] >= self.on for key in wanted)
        apart = max(self._apart(key, scores) for key in wanted)
        sys.stdout.write(f"{name}: {len(wanted)} windows, {alarming} at on, apart {apart:.1e}, log-odds {far:.1e}\n")


def measure(place: Place, chosen: Sequence[Recording]) -> Measured:
    config = place.configure("seedlink://nowhere:1")
    scorer = load_scorer(load(config))
    start_ns = begin_ns(scorer)
    odds = evaluated(scorer, write_set(place.folder / "set", chosen), start_ns)
    file = write_miniseed(place.folder / "all.mseed", chosen, start_ns)
    others = {"scan": scanned(config, scorer, file), "live": heard_live(place, scorer.grid, file)}
    return Measured(
        grid=scorer.grid,
        on=scorer.thresholds.on,
        wanted=frozenset(expected_keys(chosen, odds, start_ns, scorer.grid)),
        evaluated={key: float(expit(score)) for key, score in odds.items()},
        log_odds=odds,
        others=others,
        told=published(place, scorer.grid),
    )


def published(place: Place, grid: Grid) -> Scores:
    return {
        (alert.stations[0].source_id.split("_")[1], point.window_start + grid.window_ns): point.probability
        for alert in place.published()
        if alert.kind is Kind.DETECTION
        for point in alert.trace
    }


@pytest.fixture(scope="module")
def of_obspy(tmp_path_factory: pytest.TempPathFactory, valkey_url: str) -> Measured:
    return measure(Place(tmp_path_factory.mktemp("obspy"), valkey_url), obspy_recordings())


@pytest.mark.parametrize("station", ["UH3", "UH4"])
def test_same_scores_evaluated_scanned_and_live(of_obspy: Measured, station: str) -> None:
    of_obspy.check(station)


@pytest.mark.shared
def test_same_scores_of_every_source_of_dev(place: Place) -> None:
    if not WINDOWS.is_dir() and not os.environ.get("CI"):
        pytest.skip(f"no recordings at {WINDOWS}: they lie beside a developer's checkout only")
    chosen = dev_recordings()
    measure(place, chosen).check(*(one.station for one in chosen))
