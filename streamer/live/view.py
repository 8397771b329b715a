"""The newest minutes of every station, as the web page shows them: pure, keeps no clock.

Told by `streamer.live.feed`, in its thread. Times of the data are nanoseconds UTC; ``now_s`` is a monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from quake.alerts import Alert, Kind, Status
from streamer.grid import Grid
from streamer.inventory import Stations
from streamer.live.decimation import Decimator, Piece
from streamer.live.envelope import Envelope
from streamer.stages import NS, Packet, station_of

KEPT_NS = 300 * NS
"""Of samples and probabilities."""
AHEAD_NS = 60 * NS
"""A packet that ends so long after it came has a wrong time."""
BEFORE_NS, AFTER_NS = 30 * NS, 60 * NS
"""What an alert's picture shows beside its onset."""
DUE_S = 150.0
"""A picture is complete, or given up, this long after its alert."""
PICTURED = 12
"""Stations in an event's picture: those with the earliest onsets."""
MOST_PICTURES = 1000
"""Alerts whose pictures are awaited."""


@dataclass(slots=True)
class Sight:
    """What is known of one station."""

    newest_ns: int = 0
    decided_ns: int = 0
    fill: float = 0.0
    server: str = ""
    changed_s: float = 0.0
    """When data came last."""
    probability: float | None = None
    scored_ns: int = 0
    """End of the newest window that was scored."""
    unused: dict[str, tuple[int, float]] = field(default_factory=dict)
    """Reason -> how many samples or windows since the start, and when the last."""
    decimators: dict[str, Decimator] = field(default_factory=dict)
    pieces: deque[Piece] = field(default_factory=deque)
    shown_ns: int = 0
    """End of the newest piece."""
    windows: deque[tuple[int, float]] = field(default_factory=deque)
    """(end, probability)."""
    envelope: Envelope = field(default_factory=Envelope)
    """Of the vertical."""


@dataclass(slots=True)
class Pending:
    """A picture that is to be written, and once more when what comes after the onset is there."""

    alert: Alert
    since_s: float
    is_new: bool = True


class View:
    def __init__(self, grid: Grid, stations: Stations, *, has_helicorder: bool = False) -> None:
        self._grid, self._places, self.has_helicorder = grid, stations.places, has_helicorder
        self.sights: dict[str, Sight] = {}
        self.health: dict[str, float] = {}
        self.up: set[str] = set()
        """Servers connected."""
        self.now_s = 0.0
        self._pending: dict[str, Pending] = {}
        self.fresh: dict[str, list[tuple[str, Any]]] = {}
        """Subject -> what came since it was taken last, as (field, content)."""

    def came(self, packet: Packet) -> Sight:
        """Of whatever is in it."""
        sight = self._sight(packet.subject)
        if packet.cursor is not None:
            sight.server = packet.cursor.server
        sight.changed_s = self.now_s
        return sight

    def packet(self, packet: Packet) -> None:
        sight = self.came(packet)
        if packet.end_ns > packet.received_ns + AHEAD_NS:
            return  # else all that is true would be too old to be kept, for as long as that is ahead
        if self.has_helicorder and packet.component == "Z":
            sight.envelope.push(packet)
        piece = sight.decimators.setdefault(packet.component, Decimator()).push(packet)
        if piece is not None and piece.end_ns > sight.shown_ns - KEPT_NS:
            sight.shown_ns = max(sight.shown_ns, piece.end_ns)
            sight.pieces.append(piece)
            while sight.pieces[0].end_ns < sight.shown_ns - KEPT_NS:
                sight.pieces.popleft()
            self._freshen(packet.subject, "samples", piece.message())

    def scored(self, scores: Iterable[tuple[str, int, float]]) -> None:
        """Subject, window number, probability."""
        for subject, k, probability in scores:
            sight, end_ns = self._sight(subject), self._grid.end_ns(k)
            sight.probability, sight.scored_ns = probability, end_ns
            sight.windows.append((end_ns, probability))
            while sight.windows[0][0] < end_ns - KEPT_NS:
                sight.windows.popleft()
            self._freshen(subject, "window", _window(end_ns, probability))

    def unused(self, subject: str, reason: str, count: int) -> None:
        sight = self._sight(subject)
        sight.unused[reason] = sight.unused.get(reason, (0, 0.0))[0] + count, self.now_s

    def state(self, subject: str, newest_ns: int, decided_ns: int, fill: float) -> None:
        sight = self._sight(subject)
        sight.newest_ns, sight.decided_ns, sight.fill = newest_ns, decided_ns, fill

    def tell(self, name: str, value: float) -> None:
        self.health[name] = value

    def source(self, kind: str, server: str) -> None:
        (self.up.add if kind == "connected" else self.up.discard)(server)

    def alerts(self, alerts: Iterable[Alert]) -> None:
        for alert in alerts:
            before = self._pending.get(alert.id)
            if before is None and (alert.status is Status.CLOSED or len(self._pending) >= MOST_PICTURES):
                continue  # closed after its picture was whole: what lies before the onset may be gone by now
            # One station's picture waits until it is whole: in a storm there are as many as stations.
            self._pending[alert.id] = Pending(
                alert, before.since_s if before else self.now_s, is_new=alert.kind is Kind.EVENT
            )

    def _sight(self, subject: str) -> Sight:
        sight = self.sights.get(subject)
        if sight is None:
            sight = self.sights[subject] = Sight(changed_s=self.now_s)
        return sight

    # -- what is written -------------------------------------------------------------------------------------------------------

    def _freshen(self, subject: str, name: str, content: Any) -> None:
        if subject in self.fresh:
            self.fresh[subject].append((name, content))

    def watch(self, subjects: Iterable[str]) -> None:
        """Of these stations what comes is to be told; of one that was not watched before, the newest minutes too."""
        watched = set(subjects) & self.sights.keys()
        self.fresh = {s: self.fresh[s] if s in self.fresh else self._kept(s) for s in watched}

    def _kept(self, subject: str) -> list[tuple[str, Any]]:
        sight = self.sights[subject]
        pieces = [("samples", piece.message()) for piece in sight.pieces]
        return pieces + [("window", _window(*window)) for window in sight.windows]

    def take_fresh(self) -> dict[str, list[tuple[str, Any]]]:
        taken = {subject: items for subject, items in self.fresh.items() if items}
        self.fresh = {subject: [] for subject in self.fresh}
        return taken

    def take_hours(self) -> Iterator[tuple[str, int, int, str]]:
        """Of the helicorders: subject, hour since 1970, place of the first letter in it, letters."""
        for subject, sight in self.sights.items():
            for hour, place, text in sight.envelope.take():
                yield subject, hour, place, text

    def stations(self, expected: Iterable[str]) -> dict[str, dict[str, Any]]:
        """For JSON: every station that data came of, and those that are ``expected``."""
        nothing = Sight(changed_s=self.now_s)
        return {name: self._station(name, self.sights.get(name, nothing)) for name in {*self.sights, *expected}}

    def _station(self, subject: str, sight: Sight) -> dict[str, Any]:
        place = self._places.get(station_of(subject))
        return {
            "newest_s": sight.newest_ns / NS or None,
            "decided_s": sight.decided_ns / NS or None,
            "quiet_s": round(self.now_s - sight.changed_s, 1),
            "fill": round(sight.fill, 3),
            "connected": sight.server in self.up if sight.server else None,
            "probability": None if sight.probability is None else round(sight.probability, 4),
            "scored_s": sight.scored_ns / NS or None,
            "unused": {r: [count, round(self.now_s - at_s, 1)] for r, (count, at_s) in sight.unused.items()},
            "latitude": place and place[0],
            "longitude": place and place[1],
        }

    def take_pictures(self, most: int) -> list[tuple[Alert, dict[str, Any]]]:
        """A few of those that are due: the alert, and its picture for JSON."""
        due = [p for p in self._pending.values() if p.is_new or self._is_whole(p)][:most]
        for pending in due:
            if self._is_whole(pending):
                del self._pending[pending.alert.id]
            pending.is_new = False
        return [(pending.alert, self._picture(pending.alert)) for pending in due]

    def _is_whole(self, pending: Pending) -> bool:
        if self.now_s - pending.since_s > DUE_S:
            return True
        first = self.sights.get(pending.alert.stations[0].source_id)
        return first is not None and first.scored_ns > pending.alert.onset + AFTER_NS

    def _picture(self, alert: Alert) -> dict[str, Any]:
        from_ns, to_ns = alert.onset - BEFORE_NS, alert.onset + AFTER_NS
        names = [s.source_id for s in sorted(alert.stations, key=lambda s: s.onset)[:PICTURED]]
        known: Mapping[str, Sight] = {name: self.sights[name] for name in names if name in self.sights}
        return {
            name: {
                "samples": [p.message() for p in sight.pieces if p.end_ns > from_ns and p.start_ns < to_ns],
                "windows": [_window(*window) for window in sight.windows if from_ns < window[0] < to_ns],
            }
            for name, sight in known.items()
        }


def _window(end_ns: int, probability: float) -> list[float]:
    return [round(end_ns / NS, 3), round(probability, 4)]
