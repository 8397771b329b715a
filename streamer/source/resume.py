"""Where to go on reading after a break: by number where the server still has it, by time elsewhere, else from now.

Pure arithmetic on what is known of each station and on the server's listing. Sequence numbers belong to one station of
one server and transport; under SeedLink 3 they wrap at 2**24. A server that counts all stations' packets in one row
(ringserver) needs care: it begins a connection at the newest number that any station asks for, and finds no number from
before its 24-bit wrap. So such a server is asked for one common number (or one common time), chosen so that no station
misses anything, and what a station has had already is left out by `Plan.had`.
One packet is out of reach there: the oldest of the ring, which ringserver 4.5.3 sends neither by number nor by time.

This module does not keep the points on disk: the daemon does, with the decisions they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from streamer.source.listing import ListedStation, Listing
from streamer.stages import NS

V3_NUMBERS = 2**24
"""SeedLink 3 writes a number as six hexadecimal digits."""
V4_NUMBERS = 2**64


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """How far a station's data from one server are dealt with."""

    sequence: int | None
    """Number of the last packet whose windows are all decided."""
    time_ns: int | None
    """The oldest undecided sample."""
    packet_ns: int | None = None
    """Time of the first sample of the packet `sequence`: a server that knows it can tell that its ring began again."""


class Start(StrEnum):
    SEQUENCE = "sequence"
    TIME = "time"
    NOW = "now"


@dataclass(frozen=True, slots=True)
class Begin:
    """Where one station's data shall begin."""

    start: Start
    sequence: int | None = None
    """The last packet that is not wanted any more; servers are asked for the next one."""
    time_ns: int | None = None
    """With `TIME` the data's time to begin at, with `SEQUENCE` that of the packet `sequence` (or None)."""


@dataclass(frozen=True, slots=True)
class Had:
    """What a station has had already: packets up to a number, if they are old data too.

    The number alone is not trusted: a ring that began again may have grown past it since the listing, and then its
    packets under the same numbers are other data.
    """

    sequence: int
    before_ns: int
    """Packets that start earlier."""

    def covers(self, sequence: int, start_ns: int | None, numbers: int) -> bool:
        """`start_ns` is None for a record that cannot be read: nothing is lost with it."""
        return not is_newer(sequence, self.sequence, numbers) and (start_ns is None or start_ns < self.before_ns)


@dataclass(frozen=True, slots=True)
class Plan:
    begins: Mapping[str, Begin]
    """NET_STA -> where to begin."""
    had: Mapping[str, Had]
    """NET_STA -> what is to be left out when it comes again."""


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a station before connecting."""

    here: ResumePoint | None
    """From this very server and transport."""
    elsewhere_ns: int | None = None
    """The oldest undecided sample according to another server's point."""


def following(sequence: int, numbers: int) -> int:
    return (sequence + 1) % numbers


def is_newer(sequence: int, than: int, numbers: int) -> bool:
    """On the circle of numbers: newer within half a turn."""
    return 0 < (sequence - than) % numbers < numbers // 2


def plan(
    known: Mapping[str, Known], listing: Listing | None, *, shared: bool, numbers: int, now_ns: int, max_wait_ns: int
) -> Plan:
    """Decide for every station of a connection; `listing` is None where the server refuses it."""
    listed = {station.name: station for station in listing.stations} if listing else {}
    begins = {
        name: _by_itself(point, listed.get(name), listing, numbers=numbers, now_ns=now_ns, max_wait_ns=max_wait_ns)
        for name, point in known.items()
    }
    if not shared:
        return Plan(begins, {})
    return _in_one_row(begins, known, listing, numbers=numbers, max_wait_ns=max_wait_ns)


def _by_itself(
    known: Known, station: ListedStation | None, listing: Listing | None, *, numbers: int, now_ns: int, max_wait_ns: int
) -> Begin:
    here = known.here
    if here is not None and here.sequence is not None and _still_there(here, station, listing, numbers):
        return Begin(Start.SEQUENCE, here.sequence, here.packet_ns)
    times = [here.time_ns if here else None, known.elsewhere_ns]
    told = [time_ns for time_ns in times if time_ns is not None]
    if told:
        return Begin(Start.TIME, time_ns=min(max(told) - max_wait_ns, now_ns))
    if here is not None and here.packet_ns is not None:
        return Begin(Start.TIME, time_ns=min(here.packet_ns, now_ns))
    if here is not None and station is not None and station.begin is not None:
        return Begin(Start.SEQUENCE, (station.begin - 1) % numbers)  # all that the ring holds
    return Begin(Start.NOW)


def _still_there(point: ResumePoint, station: ListedStation | None, listing: Listing | None, numbers: int) -> bool:
    """Whether the ring holds what follows `point`; without a listing the server is believed to."""
    if point.sequence is None or point.sequence >= numbers:
        return False
    if listing is None:
        return True
    if station is None or station.begin is None or station.end is None:
        return False
    if station.newest_ns is not None and point.packet_ns is not None and station.newest_ns < point.packet_ns:
        return False  # the number is there, but the newest data are older than ours: another ring
    if listing.shared:
        return absolute(point.sequence, listing, numbers) is not None
    before = (station.begin - 1) % numbers
    return (point.sequence - before) % numbers <= (station.end - before) % numbers


def row(listing: Listing) -> tuple[int, int] | None:
    """Oldest and newest number of a server that counts in one row; its `end` is the number after the newest."""
    begins = [station.begin for station in listing.stations if station.begin is not None]
    ends = [station.end for station in listing.stations if station.end]
    return (min(begins), max(ends) - 1) if begins and ends else None


def absolute(sequence: int, listing: Listing, numbers: int) -> int | None:
    """The 64-bit number that ends in `sequence`, the newest in the ring; None where the ring does not hold it."""
    span = row(listing)
    if span is None:
        return None
    oldest, newest = span
    candidate = newest - (newest - sequence) % numbers
    return candidate if candidate >= oldest else None


def _in_one_row(
    begins: Mapping[str, Begin], known: Mapping[str, Known], listing: Listing | None, *, numbers: int, max_wait_ns: int
) -> Plan:
    """One common begin for all stations, early enough for each."""
    if listing is None:
        return Plan(_common_unlisted(begins, numbers), {})
    ends = {station.name: station.end for station in listing.stations}
    at = {name: _place(begin, listing, numbers) for name, begin in begins.items()}
    had = {name: place for name, place in at.items() if place is not None}
    # A station that has nothing newer in the ring must not hold all others back: it may have been dead for days.
    waiting = {name: place for name, place in had.items() if (ends.get(name) or 0) > place + 1} or had
    newest = (row(listing) or (0, 0))[1]
    by_time = [begin.time_ns for begin in begins.values() if begin.start is Start.TIME and begin.time_ns is not None]
    if not had and not by_time:
        return Plan(begins, {})
    first, place = min(waiting.items(), key=lambda item: item[1], default=("", newest))
    if not by_time and _reachable(place, newest, numbers):
        common = Begin(Start.SEQUENCE, place % numbers, begins[first].time_ns)
    else:
        times = by_time + [_time_of(known[name], max_wait_ns) for name in waiting]
        common = Begin(Start.TIME, time_ns=min(times))
    moved = {name: begin if begin.start is Start.NOW else common for name, begin in begins.items()}
    return Plan(moved, {name: Had(place % numbers, _had_until_ns(known[name])) for name, place in had.items()})


def _had_until_ns(known: Known) -> int:
    point = known.here
    if point is None:
        return 0
    return max(point.time_ns or 0, point.packet_ns + 1 if point.packet_ns is not None else 0)


def _place(begin: Begin, listing: Listing, numbers: int) -> int | None:
    if begin.start is not Start.SEQUENCE or begin.sequence is None:
        return None
    return absolute(begin.sequence, listing, numbers)


def _reachable(place: int, newest: int, numbers: int) -> bool:
    """ringserver completes 24 bits to 64 with the newest packet's upper bits."""
    return (place + 1) // numbers == newest // numbers or place == newest


def _time_of(known: Known, max_wait_ns: int) -> int:
    point = known.here
    if point is None:
        return 0
    if point.packet_ns is not None:
        return point.packet_ns
    return point.time_ns - max_wait_ns if point.time_ns is not None else 0


def _common_unlisted(begins: Mapping[str, Begin], numbers: int) -> dict[str, Begin]:
    """Without a listing: the oldest of what is known, by time if any station goes by time. Repeats are not left out."""
    timed = [begin for begin in begins.values() if begin.start is Start.TIME and begin.time_ns is not None]
    counted = [begin for begin in begins.values() if begin.start is Start.SEQUENCE and begin.sequence is not None]
    times = [begin.time_ns for begin in timed + counted if begin.time_ns is not None]
    if timed and times:
        common = Begin(Start.TIME, time_ns=min(times))
    elif counted:
        common = counted[0]
        for begin in counted[1:]:
            if is_newer(common.sequence or 0, begin.sequence or 0, numbers):
                common = begin
    else:
        return dict(begins)
    return {name: begin if begin.start is Start.NOW else common for name, begin in begins.items()}


def action_v3(begin: Begin) -> str:
    """SeedLink 3's command: ``DATA 00001A 2010,5,27,16,24,3``, ``TIME ...`` or ``DATA``.

    With a packet's time (seconds, cut off) the server holds its own packet against it and goes by time when it differs.
    """
    if begin.start is Start.SEQUENCE and begin.sequence is not None:
        time = f" {_commas(begin.time_ns)}" if begin.time_ns is not None else ""
        return f"DATA {following(begin.sequence, V3_NUMBERS):06X}{time}"
    if begin.start is Start.TIME and begin.time_ns is not None:
        return f"TIME {_commas(begin.time_ns)}"
    return "DATA"


def action_v4(begin: Begin) -> str:
    """SeedLink 4's command. There a time beside a number would be a filter, so the number stands alone."""
    if begin.start is Start.SEQUENCE and begin.sequence is not None:
        return f"DATA {following(begin.sequence, V4_NUMBERS)}"
    if begin.start is Start.TIME and begin.time_ns is not None:
        return f"DATA ALL {_utc(begin.time_ns).strftime('%Y-%m-%dT%H:%M:%SZ')}"
    return "DATA"


def _commas(time_ns: int) -> str:
    time = _utc(time_ns)
    return f"{time.year},{time.month},{time.day},{time.hour},{time.minute},{time.second}"


def _utc(time_ns: int) -> datetime:
    """Cut off to the second, never before 1970: no server holds older data, and none need understand the year."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=max(0, time_ns // NS))
