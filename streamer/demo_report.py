"""What the demonstration shows: verdict, margins, one picture. Scans the recording once more for the probabilities that were not alerts."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import exp
from pathlib import Path
from statistics import median

import numpy as np
from numpy.typing import NDArray

from quake.alerts import Alert, Kind, Status
from quake.times import NS, format_ns
from streamer.composition import Scorer, load_scorer
from streamer.config import Config
from streamer.hooks import Hooks
from streamer.scan import read_packets, scan
from streamer.stages import Packet, Score
from streamer.trigger import mean_log_odds

NEAR_NS = 6 * NS
"""An event whose onset lies this near to the known time tells of that earthquake."""
DURING_NS = 25 * NS
"""A window this long after an earthquake began still holds it."""


@dataclass(frozen=True, slots=True)
class Known:
    """An earthquake that is known to be in the recording."""

    name: str
    time_ns: int
    wanted: bool
    may_be_event: bool = False


@dataclass(frozen=True, slots=True)
class Summary:
    packets: int
    alerts: list[Alert]
    latencies_s: list[float]
    seconds: float


@dataclass(slots=True)
class Evidence:
    """The recording and what the model says of every window of it."""

    scorer: Scorer
    config: Config
    packets: list[Packet]
    scores: dict[str, dict[int, float]]
    """Subject -> window number -> probability."""
    alerts: list[Alert]

    def shared(self) -> dict[int, float]:
        """Window number -> the probability that as many stations reach together as make an event."""
        assert self.config.coincidence
        reach = round(self.config.coincidence.window_s * self.scorer.grid.rate / self.scorer.grid.hop)
        numbers = sorted({k for series in self.scores.values() for k in series})
        held = [_held(series, numbers, self.scorer.thresholds.in_a_row, reach) for series in self.scores.values()]
        together = np.sort(np.array(held), axis=0)[-self.config.coincidence.min_stations]  # (stations, K) -> (K,)
        return dict(zip(numbers, together.tolist(), strict=True))


@dataclass(slots=True)
class _Scores(Hooks):
    kept: dict[str, dict[int, float]] = field(default_factory=dict)

    def scored(self, scores: list[Score]) -> None:
        for score in scores:
            self.kept.setdefault(score.window.subject, {})[score.window.k] = score.probability


def _held(series: dict[int, float], numbers: list[int], in_a_row: int, reach: int) -> NDArray[np.float64]:
    """(K,) the highest probability that a station's windows in a row had together, at most ``reach`` windows ago."""
    held = np.array([_together(series.get(k - i, 0.0) for i in range(in_a_row)) for k in numbers])
    return np.array([held[max(0, i - reach) : i + 1].max() for i in range(len(held))])


def _together(probabilities: Iterable[float]) -> float:
    return 1 / (1 + exp(-mean_log_odds(probabilities)))


def evidence(config: Config, files: Sequence[Path]) -> Evidence:
    scorer, scores = load_scorer(config), _Scores()
    items = read_packets(files, time.time_ns())
    alerts = scan(config, scorer, items, [scores])
    return Evidence(scorer, config, [item for item in items if isinstance(item, Packet)], scores.kept, alerts)


def judge(known: Sequence[Known], alerts: Sequence[Alert]) -> list[str]:
    """What is wrong with the events; empty if nothing is."""
    opened = {alert.id: alert for alert in alerts if alert.kind is Kind.EVENT and alert.status is Status.OPEN}
    faults = []
    for quake in known:
        count = sum(abs(a.onset - quake.time_ns) <= NEAR_NS for a in opened.values())
        if count != 1 and quake.wanted:
            faults.append(f"{count} events instead of one for the {quake.name} at {format_ns(quake.time_ns)}")
    right = [quake for quake in known if quake.wanted or quake.may_be_event]
    for alert in opened.values():
        if not any(abs(alert.onset - quake.time_ns) <= NEAR_NS for quake in right):
            faults.append(f"an event at {format_ns(alert.onset)}, where no earthquake is known on several stations")
    return faults


def margins(evidence: Evidence, known: Sequence[Known]) -> list[str]:
    """How far above the threshold the wanted events are, and how far below it the rest."""
    on, grid, shared = evidence.scorer.thresholds.on, evidence.scorer.grid, evidence.shared()
    lines, elsewhere = [], dict(shared)
    for quake in known:
        near = [k for k in shared if quake.time_ns < grid.end_ns(k) <= quake.time_ns + DURING_NS]
        highest = max((shared[k] for k in near), default=0.0)
        if quake.wanted or quake.may_be_event:
            elsewhere = {k: p for k, p in elsewhere.items() if k not in near}
        lines.append(f"  {format_ns(quake.time_ns)[11:19]}  reached {highest:.3f}, {highest - on:+.3f}   {quake.name}")
    highest = max(elsewhere.values(), default=0.0)
    return [*lines, f"  elsewhere reached {highest:.3f}, {highest - on:+.3f}"]


def same(summary: Summary, evidence: Evidence) -> bool:
    """Whether the daemon and a scan of the files said the same."""
    return {a.id for a in evidence.alerts} == {a.id for a in summary.alerts}


def summary_text(summary: Summary, evidence: Evidence, known: Sequence[Known], faults: Sequence[str]) -> str:
    events = {a.id for a in summary.alerts if a.kind is Kind.EVENT}
    detections = {a.id for a in summary.alerts if a.kind is Kind.DETECTION}
    windows = sum(len(series) for series in evidence.scores.values())
    t = evidence.scorer.thresholds
    assert evidence.config.coincidence
    lines = [
        f"packets {summary.packets}   windows {windows}   detections {len(detections)}   events {len(events)}   "
        f"alert messages {len(summary.alerts)}   {summary.seconds:.0f} s",
        f"deciding packet to subscriber: median {_ms(summary.latencies_s, 0.5)}, longest {_ms(summary.latencies_s, 1.0)}"
        " (stations are waited for in data time before an event is said)",
        f"the same alert ids when the files are scanned without a network: {'yes' if same(summary, evidence) else 'NO'}",
        f"margins: probability that {evidence.config.coincidence.min_stations} stations reached together for {t.in_a_row} windows, "
        f"against the threshold {t.on:g}",
        *margins(evidence, known),
        *(f"WRONG: {fault}" for fault in faults),
        "Both local earthquakes were found, once each, and no event lies elsewhere."
        if not faults
        else "The demonstration failed.",
    ]
    return "\n".join(lines)


def _ms(values: Sequence[float], quantile: float) -> str:
    if not values:
        return "unknown"
    return f"{1000 * (median(values) if quantile == 0.5 else max(values)):.0f} ms"


def draw(path: Path, evidence: Evidence, alerts: Sequence[Alert]) -> None:
    """Waveforms, a spectrogram, probabilities and alerts on one time axis."""
    import matplotlib as mpl

    mpl.use("Agg")  # a daemon's machine has no screen
    from streamer import demo_picture

    demo_picture.draw(path, evidence, alerts)
