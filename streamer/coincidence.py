"""Several stations, one earthquake: which detections belong together, and when an event's revisions are due.

A simulation in data time. Openings and closings are taken in the order of the windows that decided them, once every
flowing station has decided that far (or the newest station is ``hold`` further), so the outcome does not depend on the
order of arrival. Ordering by onset would not do: a detection decided later can have an earlier onset. Pure: no wall
clock; what it remembers is one model that the outbox keeps.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import asin, cos, radians, sin, sqrt

from pydantic import BaseModel, ConfigDict

from quake.alerts import Characterisation
from quake.characterisation import combined
from streamer.stages import NS, Detection, station_of
from streamer.trigger import NAMESPACE

REVISIONS_NS = tuple(s * NS for s in (2, 5, 10, 20, 40, 80))
"""Data times after an event's onset at which it is published again as it then stands."""
LINGER_NS = 30 * NS
"""Once all its detections are over an event still waits so long for stations farther out, beyond a gap of the network."""
EARTH_KM = 6371.0
SLACK_NS = 60 * NS
"""A detection is decided up to a window and its run after its onset."""


@dataclass(frozen=True, slots=True)
class Rules:
    min_stations: int
    window_ns: int
    """Largest difference of onsets between stations whose coordinates are unknown."""
    speed_km_s: float
    """Slowest apparent speed across the network: distance over it is the largest difference of onsets."""
    tolerance_ns: int
    """Error of a refined onset, on top of the travel time."""
    hold_ns: int
    """Longest wait, in data time, for stations that have not decided so far."""
    flowing_ns: int
    """A station further behind the newest than this is waited for by nobody."""
    longest_ns: int
    """An event closes this long after its onset at the latest."""
    places: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Latitude and longitude (degrees) by station, ``BW_UH3``."""


class Member(BaseModel):
    """A detection as coincidence sees it."""

    model_config = ConfigDict(extra="forbid")

    id: str
    subject: str
    onset_ns: int
    decided_ns: int
    probability: float
    complete: bool
    received_ns: int
    closed: bool = False

    @property
    def station(self) -> str:
        return station_of(self.subject)

    @staticmethod
    def of(detection: Detection) -> Member:
        return Member(
            id=detection.id,
            subject=detection.subject,
            onset_ns=detection.onset_ns,
            decided_ns=detection.decided_ns,
            probability=detection.probability,
            complete=detection.complete,
            received_ns=detection.received_ns,
            closed=detection.off_ns is not None,
        )


class Event(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    revision: int
    opened_ns: int
    """Data time at which the condition was fulfilled."""
    members: list[Member]
    over_ns: int | None = None
    """Data time at which the last of its detections closed; None while one is open."""
    sealed_ns: int | None = None
    """The first such time. From then on what its own stations hear is another earthquake, which must not go untold."""
    closed_ns: int | None = None
    characterisation: Characterisation | None = None
    """Of what is told, from `CoincidenceState.characterised`; an event in the state has none."""

    @property
    def onset_ns(self) -> int:
        return min(member.onset_ns for member in self.members)


class Characterised(BaseModel):
    """What a station said of a detection's size, and when."""

    model_config = ConfigDict(extra="forbid")

    id: str
    decided_ns: int
    characterisation: Characterisation


class CoincidenceState(BaseModel):
    """All that coincidence remembers."""

    model_config = ConfigDict(extra="forbid")

    reached_ns: int = 0
    waiting: list[Member] = []
    """Openings and closings not yet taken."""
    single: list[Member] = []
    """Openings taken that belong to no event so far, closed ones too: a short one near the source is over before
    others."""
    events: list[Event] = []
    characterised: list[Characterised] = []
    """Of detections of the last minutes, oldest first for each; of those up to the time reached the newest."""


class Coincidence:
    def __init__(self, rules: Rules, state: CoincidenceState | None = None) -> None:
        self._rules = rules
        self.state = state or CoincidenceState()
        self._memory_ns = max(rules.longest_ns, rules.window_ns, _widest_ns(rules)) + rules.tolerance_ns + SLACK_NS

    def add(self, detection: Detection) -> None:
        self.add_member(Member.of(detection))

    def add_member(self, member: Member) -> None:
        self.state.waiting.append(member)
        self.state.waiting.sort(key=lambda m: (m.decided_ns, m.onset_ns, m.id))

    def characterise(self, ident: str, decided_ns: int, found: Characterisation) -> None:
        """A detection's size, as its station saw it at a data time; events tell it from then on."""
        reached_ns, before = self.state.reached_ns, self.state.characterised
        standing = {one.id: one for one in before if one.decided_ns <= reached_ns}
        kept = [
            one
            for one in before
            if one.decided_ns > reached_ns
            or (one is standing[one.id] and one.decided_ns >= reached_ns - self._memory_ns)
        ]
        self.state.characterised = [*kept, Characterised(id=ident, decided_ns=decided_ns, characterisation=found)]

    def watermark_ns(self, decided_ns: Mapping[str, int]) -> int:
        """How far data time may go, from the end of each subject's newest decided window."""
        if not decided_ns:
            return 0
        newest = max(decided_ns.values())
        flowing = min(t for t in decided_ns.values() if t >= newest - self._rules.flowing_ns)
        return max(flowing, newest - self._rules.hold_ns)

    def advance(self, until_ns: int) -> Iterator[Event]:
        """Let data time run; yields a copy of each event that opens, is due for a revision, or closes."""
        while True:
            entry_ns = max(self.state.waiting[0].decided_ns, self.state.reached_ns) if self.state.waiting else None
            due = min(((self._due_ns(e), e.id) for e in self.state.events), default=None)
            if entry_ns is not None and entry_ns <= until_ns and (due is None or entry_ns <= due[0]):
                self.state.reached_ns = entry_ns
                yield from self._take(self.state.waiting.pop(0))
            elif due is not None and due[0] <= until_ns:
                self.state.reached_ns = max(self.state.reached_ns, due[0])
                yield self._revise(next(e for e in self.state.events if e.id == due[1]))
            else:
                break
        self.state.reached_ns = max(self.state.reached_ns, until_ns)

    def finish(self) -> Iterator[Event]:
        """No more data come: what is over waits for nobody."""
        for event in list(self.state.events):
            if event.over_ns is not None:
                yield _close(self.state, event)

    def _take(self, member: Member) -> Iterator[Event]:
        if member.closed:
            _closing(self.state, member)
            return
        for event in self.state.events:
            if self._belongs(member, event):
                event.members.append(member)
                event.over_ns = None
                return
        yield from self._gather(member)

    def _gather(self, member: Member) -> Iterator[Event]:
        oldest_ns = member.decided_ns - self._memory_ns
        self.state.single = [m for m in self.state.single if m.decided_ns >= oldest_ns]
        free = sorted([*self.state.single, *self._late()], key=lambda m: (m.decided_ns, m.onset_ns, m.id))
        group = self._agreeing([member], [m for m in free if self._compatible(m, member)])
        if group is None:
            self.state.single.append(member)
            return
        group += [m for m in free if m not in group and all(self._compatible(m, g) for g in group)]
        group.sort(key=lambda m: (m.decided_ns, m.onset_ns, m.id))
        taken = {m.id for m in group}
        self.state.single = [m for m in self.state.single if m.id not in taken]
        ident = str(uuid.uuid5(NAMESPACE, "event|" + "|".join(m.id for m in group)))
        event = Event(id=ident, revision=0, opened_ns=self.state.reached_ns, members=group)
        self.state.events.append(event)
        yield _told(self.state, event)

    def _late(self) -> Iterator[Member]:
        """Those that joined an event which was over: they may as well be the first to hear another earthquake."""
        for event in self.state.events:
            if event.sealed_ns is not None:
                yield from (m.model_copy() for m in event.members if m.decided_ns > event.sealed_ns)

    def _agreeing(self, group: list[Member], candidates: list[Member]) -> list[Member] | None:
        """The first group of enough stations, oldest candidates first, in which every two are compatible. A search: the
        oldest candidate may fit the newcomer and yet bar those that fit one another."""
        stations = {m.station for m in group}
        if len(stations) >= self._rules.min_stations:
            return group
        if len(stations.union(m.station for m in candidates)) < self._rules.min_stations:
            return None  # or every part of what agrees would be tried, and there are 2^n
        for place, chosen in enumerate(candidates):
            if chosen.station not in stations:
                rest = [m for m in candidates[place + 1 :] if self._compatible(m, chosen)]
                found = self._agreeing([*group, chosen], rest)
                if found is not None:
                    return found
        return None

    def _belongs(self, member: Member, event: Event) -> bool:
        """Half of the members suffice: one of them may have been picked on S."""
        if event.sealed_ns is not None and member.station in {m.station for m in event.members}:
            return False
        return 2 * sum(self._compatible(member, m) for m in event.members) >= len(event.members)

    def _compatible(self, a: Member, b: Member) -> bool:
        here, there = self._rules.places.get(a.station), self._rules.places.get(b.station)
        if here is None or there is None:
            return abs(a.onset_ns - b.onset_ns) <= self._rules.window_ns
        travel_ns = distance_km(here, there) / self._rules.speed_km_s * NS
        return abs(a.onset_ns - b.onset_ns) <= travel_ns + self._rules.tolerance_ns

    def _due_ns(self, event: Event) -> int:
        """When the event is to be published next: the next fixed time after its newest, or its end at the latest."""
        onset_ns, end_ns = event.members[0].onset_ns, self._end_ns(event)
        times = [onset_ns + after for after in REVISIONS_NS if onset_ns + after > event.opened_ns]
        due_ns = times[event.revision] if event.revision < len(times) else end_ns
        return max(min(due_ns, end_ns), event.opened_ns)

    def _end_ns(self, event: Event) -> int:
        last_ns = event.members[0].onset_ns + self._rules.longest_ns
        return last_ns if event.over_ns is None else min(last_ns, event.over_ns + LINGER_NS)

    def _revise(self, event: Event) -> Event:
        if self._due_ns(event) >= self._end_ns(event):
            return _close(self.state, event)
        event.revision += 1
        return _told(self.state, event)


def cut_off(state: CoincidenceState, closings: Iterable[Detection]) -> Iterator[Event]:
    """The events of a state with which nobody goes on, closed at the time reached. ``closings``: of all that are open."""
    for closing in closings:
        _closing(state, Member.of(closing))
    for event in list(state.events):
        yield _close(state, event)


def _closing(state: CoincidenceState, closing: Member) -> None:
    for single in state.single:
        if single.id == closing.id:
            single.closed, single.probability = True, closing.probability
    for event in state.events:
        mine = [member for member in event.members if member.id == closing.id]
        for member in mine:
            member.closed, member.probability = True, closing.probability
        if mine and event.over_ns is None and all(member.closed for member in event.members):
            event.over_ns = state.reached_ns
            event.sealed_ns = event.sealed_ns or state.reached_ns


def _told(state: CoincidenceState, event: Event) -> Event:
    """As it stands at the time reached."""
    sizes = {c.id: c.characterisation for c in state.characterised if c.decided_ns <= state.reached_ns}
    by_station = {m.station: sizes[m.id] for m in reversed(event.members) if m.id in sizes}
    return event.model_copy(deep=True, update={"characterisation": combined(list(by_station.values()))})


def _close(state: CoincidenceState, event: Event) -> Event:
    state.events.remove(event)
    event.revision += 1
    event.closed_ns = event.over_ns or state.reached_ns
    return _told(state, event)


def _widest_ns(rules: Rules) -> int:
    """At least the longest travel time between two of the places: twice the farthest from any one of them."""
    places = list(rules.places.values())
    return int(2 * max((distance_km(places[0], there) for there in places), default=0.0) / rules.speed_km_s * NS)


def distance_km(here: tuple[float, float], there: tuple[float, float]) -> float:
    """Great circle between (latitude, longitude) in degrees; a sphere is right to 0.6 %."""
    (lat1, lon1), (lat2, lon2) = ((radians(a), radians(b)) for a, b in (here, there))
    h = sin((lat2 - lat1) / 2) ** 2 + cos(lat1) * cos(lat2) * sin((lon2 - lon1) / 2) ** 2
    return 2 * EARTH_KM * asin(min(1.0, sqrt(h)))
