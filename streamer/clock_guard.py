"""Keeps one wrong time stamp from moving a station's clock by hours.

A packet far from the station's clock is held until its channel sends another one near to it; then both are accepted,
and with them what the other channels held there. A packet back at the usual time in between shows that the held one
was wrong. Costs one packet of delay after a long outage.
"""

from __future__ import annotations

from dataclasses import dataclass

from streamer.stages import Packet


@dataclass(frozen=True, slots=True)
class Verdict:
    accepted: tuple[Packet, ...] = ()
    """Oldest first."""
    refused: tuple[Packet, ...] = ()
    went_back: bool = False
    """The accepted packets begin long before what the station had: its clock was set back."""


class ClockGuard:
    """For one station: a held packet for each of its channels."""

    def __init__(self, jump_ns: int) -> None:
        self._jump_ns = jump_ns
        self._held: dict[str, Packet] = {}

    def judge(self, packet: Packet, clock_ns: int | None, newest_ns: int) -> Verdict:
        """``clock_ns``: the start of the station's newest packet; None before its first. ``newest_ns``: its end."""
        held = self._held.pop(packet.component, None)
        if clock_ns is None or self._near(packet, clock_ns, newest_ns):
            return Verdict((packet,), () if held is None else (held,))
        if held is None:
            self._held[packet.component] = packet
            return Verdict()
        if not self._near(packet, held.start_ns, held.end_ns):
            self._held[packet.component] = packet
            return Verdict(refused=(held,))
        if packet.start_ns == held.start_ns:  # the same one again agrees with nothing
            self._held[packet.component] = held
            return Verdict(refused=(packet,))
        first_ns, last_ns = sorted((held.start_ns, packet.start_ns))
        others = [p for p in self._held.values() if self._near(p, first_ns, last_ns)]
        self._held = {name: p for name, p in self._held.items() if p not in others}
        accepted = sorted([held, packet, *others], key=lambda p: p.start_ns)
        return Verdict(tuple(accepted), went_back=accepted[0].start_ns < clock_ns)

    def _near(self, packet: Packet, time_ns: int, until_ns: int = 0) -> bool:
        return time_ns - self._jump_ns <= packet.start_ns <= max(time_ns, until_ns) + self._jump_ns
