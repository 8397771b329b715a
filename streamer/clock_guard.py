"""Keeps one wrong time stamp from moving a station's clock by hours.

A packet far from the station's clock is held until its channel sends another one near to it; then both are accepted,
and with them what the other channels held there. Costs one packet of delay after a long outage.

A packet back at the usual time in between shows that a held one of the past was wrong. One that lies ahead may be the first
of the present, while records of an outage are made good between the live ones: it stays held until one follows it sample
upon sample, however many come in between, and is refused where its channel's own data turn out to lie.

Once the clock has jumped to the present, what is made good lies far behind it. It goes on where its channel broke off,
and so sets no clock back: it is let through, and is late.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from streamer.stages import NS, Packet

MOST_HELD = 4
"""Packets, and places where data broke off, of one channel: that of the present, and some wrong ones beside it."""
MOST_BEHIND = 100
"""After so many packets that go on far behind the clock, and none near it, nobody is at the clock's time any more: of three
channels one was wrong twice in a row, two minutes ago. Seldom is so much made good between two live packets."""


@dataclass(frozen=True, slots=True)
class Verdict:
    accepted: tuple[Packet, ...] = ()
    """Oldest first."""
    refused: tuple[Packet, ...] = ()
    went_back: bool = False
    """The accepted packets begin long before what the station had: its clock was set back."""


class ClockGuard:
    """For one station: of each channel, the packets that are held, and where its data end."""

    def __init__(self, jump_ns: int) -> None:
        self._jump_ns = jump_ns
        self._held: dict[str, list[Packet]] = {}
        self._returned: set[str] = set()
        """Channels that were near the clock after the newest packet that they hold."""
        self._ends_ns: defaultdict[str, list[int]] = defaultdict(list)
        """Where the channel's data end, and where they broke off: the place that a packet came to last is the last."""
        self._behind = 0

    def judge(self, packet: Packet, clock_ns: int | None, newest_ns: int) -> Verdict:
        """``clock_ns``: the start of the station's newest packet; None before its first. ``newest_ns``: its end."""
        if clock_ns is None or self._near(packet, clock_ns, newest_ns):
            return self._usual(packet, clock_ns or 0)
        if packet.start_ns < clock_ns and self._goes_on(packet):
            self._behind += 1
            if self._behind > MOST_BEHIND:
                return self._moved(packet, [], clock_ns)
            self._note(packet)
            return Verdict((packet,))
        return self._far(packet, clock_ns)

    def _usual(self, packet: Packet, clock_ns: int) -> Verdict:
        """A packet near the clock, which settles what its channel holds."""
        code = packet.component
        self._returned.add(code)
        if code not in self._held:
            self._behind = 0
            self._note(packet)
            return Verdict((packet,))
        accepted, refused, ahead = [packet], list[Packet](), list[Packet]()
        for held in self._held.pop(code):
            if _follows(packet, held.end_ns):
                accepted.append(held)
            elif held.start_ns >= clock_ns - self._jump_ns:
                (refused if _overlap(held, packet) else ahead).append(held)
            elif held.start_ns > min(self._ends_ns[code], default=held.start_ns):  # made good, after a gap
                accepted.append(held)
            else:
                refused.append(held)
        if ahead:
            self._held[code] = ahead
        return self._verdict(accepted, refused)

    def _far(self, packet: Packet, clock_ns: int) -> Verdict:
        code = packet.component
        held = self._held.setdefault(code, [])
        if any(packet.start_ns == p.start_ns for p in held):  # the same one again agrees with nothing
            return Verdict(refused=(packet,))
        agreed = [p for p in held if _follows(packet, p.end_ns) or _follows(p, packet.end_ns)]
        if held and code not in self._returned and self._near(packet, held[-1].start_ns, held[-1].end_ns):
            agreed.append(held[-1])
        if agreed:
            return self._moved(packet, agreed, clock_ns)
        held.append(packet)
        self._returned.discard(code)
        return Verdict(refused=(held.pop(0),) if len(held) > MOST_HELD else ())

    def _moved(self, packet: Packet, agreed: list[Packet], clock_ns: int) -> Verdict:
        """To another time: what any channel holds near it is of it, too."""
        starts_ns = [p.start_ns for p in (packet, *agreed)]
        first_ns, last_ns = min(starts_ns), max(starts_ns)
        accepted = [packet]
        for code, held in self._held.items():
            accepted += [p for p in held if self._near(p, first_ns, last_ns)]
            self._held[code] = [p for p in held if not self._near(p, first_ns, last_ns)]
        went_back = first_ns < clock_ns
        if went_back:
            self._ends_ns.clear()
        return self._verdict(accepted, went_back=went_back)

    def _verdict(self, accepted: list[Packet], refused: Iterable[Packet] = (), *, went_back: bool = False) -> Verdict:
        self._behind = 0
        accepted.sort(key=lambda p: p.start_ns)
        for packet in accepted:
            self._note(packet)
        return Verdict(tuple(accepted), tuple(refused), went_back)

    def _goes_on(self, packet: Packet) -> bool:
        """Whether it comes where its channel's data end, or broke off."""
        return any(_follows(packet, end_ns) for end_ns in self._ends_ns[packet.component])

    def _note(self, packet: Packet) -> None:
        ends_ns = self._ends_ns[packet.component]
        others_ns = [ns for ns in ends_ns if ns != packet.end_ns and not _follows(packet, ns)]
        ends_ns[:] = [*others_ns, packet.end_ns][-MOST_HELD:]

    def _near(self, packet: Packet, time_ns: int, until_ns: int = 0) -> bool:
        return time_ns - self._jump_ns <= packet.start_ns <= max(time_ns, until_ns) + self._jump_ns


def _follows(packet: Packet, end_ns: int) -> bool:
    """Whether it begins a sample after this last one, give or take almost one. In whole numbers: asked of every packet."""
    after_ns = packet.start_ns - end_ns
    return after_ns > 0 and after_ns * packet.rate.numerator < 2 * NS * packet.rate.denominator


def _overlap(one: Packet, other: Packet) -> bool:
    return one.start_ns <= other.end_ns and other.start_ns <= one.end_ns
