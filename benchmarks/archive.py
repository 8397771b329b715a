"""How fast one core scans an archive: `quake-streamer scan` over hours of one station, EfficientNet on ONNX Runtime.

    python -m benchmarks.archive [--quick] [--out FILE]

An SDS archive of three channels at 100 Hz in which one minute an hour has a local earthquake, a window a second, from
opening the model to the last alert decided, in one process on one processor. Three ways: every window; the two passes of
a scan at the detector's own windows in a row; and at eight in a row, where the first pass leaves least to the second. Two
passes are to give the alerts of one over all windows at the same thresholds, and that is looked at here, too.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
import obspy
from numpy.typing import NDArray
from scipy.signal import welch

from benchmarks.load import CYCLE_S, RATE, ground
from benchmarks.results import Line, Part, at_least
from benchmarks.running import on_processor, processors
from benchmarks.stations import Subject, efficientnet
from quake.alerts import Alert
from streamer import scanning
from streamer.config import Config, resolve
from streamer.scan_passes import Reach
from streamer.server.records import pack
from streamer.stages import NS

BEGIN_NS = 1_577_836_800 * NS
"""2020-01-01."""
LOUD_MINUTE = 30
"""Of each hour: the one with an earthquake."""
FADE_S = 5
HOURS = 12
EVERY_GOAL, PASSES_GOAL = 600.0, 2000.0
"""Times real time: every window scored, and with a first pass at a longer hop."""
IN_A_ROW = 8


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan of the archive."""

    seconds: float
    alerts: tuple[Alert, ...]

    @property
    def told(self) -> list[str]:
        """What another scan must tell, too: all but the times of day at which it did, and the trace, which tells the windows
        that were scored."""
        return [alert.model_dump_json(exclude={"latency", "created", "trace"}) for alert in self.alerts]


def hour(seed: int = 0) -> NDArray[np.int32]:
    """(3, an hour) counts: noise of the spectrum that the recording has between its earthquakes, which is stationary, and a minute
    of the recording with an earthquake, faded in and out. What the recording itself has between them holds small ones."""
    chance, samples, fade = np.random.default_rng(seed), 3600 * RATE, FADE_S * RATE
    quiet = ground()[False].astype(float)
    hertz, power = welch(quiet - quiet.mean(axis=1, keepdims=True), RATE, nperseg=10 * RATE)
    shape = np.stack([np.sqrt(np.interp(np.fft.rfftfreq(samples, 1 / RATE), hertz, row * RATE / 2)) for row in power])
    noise = np.fft.irfft(np.fft.rfft(chance.standard_normal((3, samples))) * shape, samples)
    begin, event = LOUD_MINUTE * CYCLE_S * RATE, ground()[True].astype(float)
    share = np.ones(event.shape[1])
    share[:fade] = np.linspace(0.0, 1.0, fade)
    share[-fade:] = share[:fade][::-1]
    place = noise[:, begin : begin + event.shape[1]]
    place += share * (event - event.mean(axis=1, keepdims=True) - place)
    return np.rint(noise).astype(np.int32)


def write_sds(folder: Path, hours: int) -> Path:
    """Of one station, without a gap."""
    for number in range(hours):
        start = obspy.UTCDateTime(ns=BEGIN_NS + number * 3600 * NS)
        for code, samples in zip("ZNE", hour(number), strict=True):
            place = folder / "2020" / "XX" / "A0000" / f"HH{code}.D"
            place.mkdir(parents=True, exist_ok=True)
            header = {"network": "XX", "station": "A0000", "channel": f"HH{code}", "sampling_rate": RATE}
            with (place / f"XX.A0000..HH{code}.D.2020.001").open("ab") as file:
                file.writelines(one.data for one in pack(obspy.Trace(samples, {**header, "starttime": start})))
    return folder


def configured(subject: Subject, in_a_row: int | None) -> Config:
    """``in_a_row``: None for the detector's own."""
    sha256 = hashlib.sha256(subject.path.read_bytes()).hexdigest()  # pinned: opened without a trial in a child process
    content = {
        "source": [{"servers": ["seedlink://x"], "select": ["*.*"]}],
        "model": {"path": str(subject.path), "sha256": sha256, "threads": 1, "device": "cpu"},
        "windows": {"hop_s": 1.0},
        "trigger": {} if in_a_row is None else {"in_a_row": in_a_row},
    }
    return resolve(content, subject.path)


@contextmanager
def one_pass() -> Iterator[None]:
    """Meanwhile a scan's first pass has every window, and nothing is left for the second."""
    with patch.object(Reach, "is_first", lambda reach, k: True):
        yield


def scan(config: Config, archive: Path) -> Scan:
    begun_s = time.perf_counter()
    found = scanning.run(config, [archive], processes=1)
    return Scan(time.perf_counter() - begun_s, found.alerts)


def faster(data_s: float, found: Scan) -> float:
    """Times real time."""
    return data_s / found.seconds


def lines(subject: Subject, archive: Path, data_s: float) -> Iterator[Line]:
    what = f"{subject.name}: one station, a window a second, one core"
    for in_a_row, of in ((None, "the detector's own, 2"), (IN_A_ROW, str(IN_A_ROW))):
        config = configured(subject, in_a_row)
        with one_pass():
            whole = scan(config, archive)  # and all is imported, and the files are in memory
        found = scan(config, archive)
        yield at_least(
            f"{what}: two passes, windows in a row: {of}", faster(data_s, found), PASSES_GOAL, "times real time"
        )
        same = found.told == whole.told and bool(found.told)
        yield Line(f"{what}: alerts of these two passes", _alerts(found), f"those of one: {_alerts(whole)}", same)
    every = scan(configured(subject, 1), archive)
    yield at_least(f"{what}: every window scored", faster(data_s, every), EVERY_GOAL, "times real time")


def _alerts(found: Scan) -> str:
    return f"{len({alert.id for alert in found.alerts})} ids, {len(found.alerts)} revisions"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="an hour of data: does it run?")
    parser.add_argument("--out", type=Path, help="the lines as JSON")
    chosen = parser.parse_args(arguments)
    hours = 1 if chosen.quick else HOURS
    with tempfile.TemporaryDirectory() as folder, on_processor(processors()[0]):
        archive = write_sds(Path(folder), hours)
        found = tuple(lines(efficientnet(), archive, 3600.0 * hours))
    Part("An archive on one core", found, notes=(f"{hours} hours of one station, an earthquake in each.",)).tell(
        chosen.out
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
