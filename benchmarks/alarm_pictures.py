"""One alarm as a picture, so that a person can say what it was: waveforms, a spectrogram, probabilities on one time axis.

Needs matplotlib. What is not here: which alarms there are (`benchmarks.decisions`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import obspy
from matplotlib import dates as mdates
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.signal import spectrogram

from quake.times import NS, format_ns
from streamer.composition import Scorer
from streamer.orientation import ROWS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.decisions import Alarm

HALF_NS = 30 * NS
"""Drawn before the onset and after it."""
HIGH_PASS_HZ = 1.0
"""Of the waveforms drawn: the sea's microseism would hide what is looked for. The detector reads them unfiltered."""
EDGE_NS = 5 * NS
"""Read beyond what is drawn, for the filter to settle in."""
NFFT = 128


def draw(path: Path, file: Path, alarm: Alarm, scores: Mapping[int, float], scorer: Scorer) -> None:
    """``file``: the recording; ``scores``: probability by the window's number, of the alarm's station."""
    stream = _read(file, alarm)
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplots(5, 1, sharex=True, height_ratios=[1, 1, 1, 1.4, 1.2])
    for trace in stream:
        _waveform(axes[ROWS[trace.stats.channel[-1]]], trace)
        if ROWS[trace.stats.channel[-1]] == 0 and trace.stats.npts >= NFFT:
            _spectrogram(axes[3], trace)
    _probabilities(axes[4], scores, scorer)
    for axis in axes:
        axis.axvline(_date(alarm.onset_ns), color="black", linewidth=0.8, linestyle=":")
        axis.axvline(_date(alarm.opened_ns), color="#D55E00", linewidth=1.2)
    axes[0].set_title(
        f"{alarm.file}  {alarm.station}  alarm at {format_ns(alarm.opened_ns)}, probability {alarm.probability:.3f}, "
        f"{alarm.lasted_s:g} s\nwaveforms above {HIGH_PASS_HZ:g} Hz; dotted: onset; red: the alarm opens",
        fontsize=10,
    )
    axes[4].set_xlim(_date(alarm.onset_ns - HALF_NS), _date(alarm.onset_ns + HALF_NS))
    axes[4].xaxis.set_major_formatter(mdates.DateFormatter("%H:%M:%S"))  # type: ignore[no-untyped-call]
    figure.savefig(path, dpi=90)


def _read(file: Path, alarm: Alarm) -> obspy.Stream:
    """Of the alarm's station around its onset; gaps stay gaps."""
    begin_ns, end_ns = (alarm.onset_ns + sign * (HALF_NS + EDGE_NS) for sign in (-1, 1))
    stream = obspy.read(str(file), starttime=obspy.UTCDateTime(ns=begin_ns), endtime=obspy.UTCDateTime(ns=end_ns))
    return obspy.Stream(_of(stream, alarm.station))


def _of(stream: obspy.Stream, station: str) -> Iterator[obspy.Trace]:
    for trace in stream:
        stats = trace.stats
        if f"{stats.network}.{stats.station}" == station and stats.channel[-1:] in ROWS and stats.npts > 1:
            yield trace


def _waveform(axis: Axes, trace: obspy.Trace) -> None:
    drawn = trace.copy().detrend("linear").filter("highpass", freq=HIGH_PASS_HZ, zerophase=True)
    axis.plot(_dates(trace), drawn.data, color="black", linewidth=0.5)
    axis.set_ylabel(trace.stats.channel)


def _spectrogram(axis: Axes, trace: obspy.Trace) -> None:
    samples = trace.data.astype(np.float64)
    rate_hz = trace.stats.sampling_rate
    frequencies, middles_s, power = spectrogram(samples, rate_hz, nperseg=NFFT, noverlap=NFFT // 2)
    level_db = 10 * np.log10(power + 1e-12)  # (frequencies, middles)
    low, high = np.percentile(level_db, [20, 99.5])
    places = np.rint(middles_s * rate_hz).astype(int)
    axis.pcolormesh(_dates(trace)[places], frequencies, level_db, cmap="cividis", vmin=low, vmax=high, rasterized=True)
    axis.set_ylabel(f"{trace.stats.channel}, Hz")


def _probabilities(axis: Axes, scores: Mapping[int, float], scorer: Scorer) -> None:
    """At the end of each window; a window that was not scored has no dot."""
    numbers = sorted(scores)
    ends_ns = np.array([scorer.grid.end_ns(k) for k in numbers], dtype="datetime64[ns]")
    axis.plot(ends_ns, [scores[k] for k in numbers], color="#0072B2", linewidth=0.8, marker=".", markersize=3)
    for name, level in (("on", scorer.thresholds.on), ("off", scorer.thresholds.off)):
        axis.axhline(level, color="grey", linewidth=0.8, linestyle="--", label=f"{name} {level:g}")
    axis.set_ylim(-0.02, 1.02)
    axis.set_ylabel("probability")
    axis.legend(loc="upper left", fontsize=8)


def _dates(trace: obspy.Trace) -> NDArray[np.datetime64]:
    """(N,) UTC, as matplotlib takes it."""
    offsets_ns = np.rint(np.arange(trace.stats.npts) * (NS / trace.stats.sampling_rate)).astype(np.int64)
    return np.asarray(offsets_ns + int(trace.stats.starttime.ns), dtype="datetime64[ns]")


def _date(time_ns: int) -> np.datetime64:
    return np.datetime64(time_ns, "ns")
