"""The demonstration's picture: waveforms, spectrogram, probability and alerts on one time axis.

Needs matplotlib, which a station does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import dates as mdates
from numpy.typing import NDArray
from scipy.signal import spectrogram

from quake.alerts import Alert, Kind, Status
from quake.times import NS
from streamer.stages import station_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from streamer.demo_report import Evidence

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7")
"""Okabe and Ito: told apart by colour-blind eyes."""
EVENT = "#D55E00"
NFFT = 128
CAPTION = "27 May 2010, UTC.  Probability at the end of each window.  Red line: event, at its onset.  Dotted: one station's onset."


def draw(path: Path, evidence: Evidence, alerts: Sequence[Alert]) -> None:
    waveforms = _waveforms(evidence)
    figure, axes = plt.subplots(
        len(waveforms) + 2,
        1,
        sharex=True,
        figsize=(13, 11),
        constrained_layout=True,
        gridspec_kw={"height_ratios": [1] * len(waveforms) + [1.6, 1.8]},
    )
    colours = dict(zip(sorted({station_of(name) for name in waveforms}), COLOURS, strict=False))
    for axis, (channel, (times, samples, _)) in zip(axes, waveforms.items(), strict=False):
        axis.plot(_dates(times), samples, color=colours[station_of(channel)], linewidth=0.5)
        axis.set_ylabel(station_of(channel).split("_")[1])
        axis.set_yticks([])
        axis.set_ylim(-1.0, 1.0)
        axis.text(0.005, 0.82, channel.removeprefix("FDSN:"), transform=axis.transAxes, fontsize=8)
    _spectrogram(axes[-2], waveforms)
    _probabilities(axes[-1], evidence, colours)
    for axis in axes:
        _mark(axis, alerts)
        axis.margins(x=0.01)
    axes[0].set_title(
        "Two local earthquakes near Munich: what the daemon saw and said (waveforms above a quarter clipped)"
    )
    axes[-1].xaxis.set_major_locator(mdates.SecondLocator(bysecond=(0, 30)))  # type: ignore[no-untyped-call]
    axes[-1].xaxis.set_major_formatter(mdates.DateFormatter("%H:%M:%S"))  # type: ignore[no-untyped-call]
    axes[-1].set_xlabel(CAPTION)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _waveforms(evidence: Evidence) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64], float]]:
    """Vertical channel -> (N,) seconds since 1970, (N,) samples without mean, rate."""
    parts: dict[str, list[tuple[NDArray[np.float64], NDArray[np.float64], float]]] = {}
    for packet in evidence.packets:
        if packet.component == "Z":
            rate = float(packet.rate)
            times = packet.start_ns / NS + np.arange(len(packet.samples)) / rate
            parts.setdefault(packet.channel, []).append((times, packet.samples.astype(np.float64), rate))
    joined = {}
    for channel in sorted(parts):
        times, samples = (np.concatenate([part[i] for part in parts[channel]]) for i in (0, 1))
        samples = samples - samples.mean()
        joined[channel] = times, samples / (0.25 * np.abs(samples).max()), parts[channel][0][2]
    return joined


def _spectrogram(axis: Axes, waveforms: dict[str, tuple[NDArray[np.float64], NDArray[np.float64], float]]) -> None:
    """Of the station with three components, as all of its band that there is."""
    channel = next((name for name in waveforms if "UH3" in name), next(iter(waveforms)))
    times, samples, rate = waveforms[channel]
    frequencies, middles, power = spectrogram(samples, rate, nperseg=NFFT, noverlap=NFFT // 2)
    level = 10 * np.log10(power + 1e-12)
    low, high = np.percentile(level, [20, 99.5])
    axis.pcolormesh(
        _dates(times[0] + middles),
        frequencies,
        level,
        cmap="cividis",
        vmin=low,
        vmax=high,
        shading="nearest",
        rasterized=True,
    )
    axis.set_ylabel(f"{station_of(channel).split('_')[1]} Z, Hz")


def _probabilities(axis: Axes, evidence: Evidence, colours: dict[str, str]) -> None:
    grid, thresholds = evidence.scorer.grid, evidence.scorer.thresholds
    for subject, series in sorted(evidence.scores.items()):
        ends = np.array([grid.end_ns(k) / NS for k in sorted(series)])
        values = [series[k] for k in sorted(series)]
        axis.plot(
            _dates(ends),
            values,
            color=colours[station_of(subject)],
            linewidth=1.2,
            label=station_of(subject).split("_")[1],
        )
    axis.axhline(thresholds.on, color="black", linewidth=0.8, linestyle="--", label=f"on {thresholds.on:g}")
    axis.axhline(thresholds.off, color="grey", linewidth=0.8, linestyle=":", label=f"off {thresholds.off:g}")
    axis.set_ylim(-0.02, 1.25)
    axis.set_ylabel("probability")
    axis.legend(loc="upper center", fontsize=8, ncols=6)


def _mark(axis: Axes, alerts: Sequence[Alert]) -> None:
    for alert in alerts:
        if alert.status is Status.OPEN:
            event = alert.kind is Kind.EVENT
            colour, width, style = (EVENT, 2.0, "-") if event else ("black", 0.6, ":")
            axis.axvline(_dates(np.array([alert.onset / NS]))[0], color=colour, linewidth=width, linestyle=style)


def _dates(seconds: NDArray[np.float64]) -> NDArray[np.datetime64]:
    """UTC, as matplotlib takes it."""
    return (seconds * NS).astype(np.int64).astype("datetime64[ns]")
