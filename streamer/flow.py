"""``quake-streamer check --flow``: whether packets of each configured station and component come, and if not, why.

Listens as the daemon does, from now on, and keeps nothing: no resume point is read or moved, nothing is scored.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from quake.times import NS, format_ns
from streamer.composition import shard, source_settings
from streamer.config import Config
from streamer.grid import Grid, ratio
from streamer.source import SeedLinkSource, SourceStatus, parse_pattern
from streamer.source.listing import Channel, ListedStation, Listing
from streamer.source.selection import unmatched
from streamer.stages import Packet, Refused, Subscribed, station_of

TICK_S = 0.2
LONG_S = 120.0
"""From here on a latency is told in days, hours and minutes."""

Line = tuple[bool, str]
"""Whether it is as it should be, and what it says."""
Expected = Mapping[str, frozenset[str]]
"""FDSN source id without component -> components."""


@dataclass(slots=True)
class Heard:
    """What has come, by channel (``FDSN:BW_UH3__S_H_Z``) and by station (``BW_UH3``)."""

    count: Counter[str] = field(default_factory=Counter)
    newest: dict[str, Packet] = field(default_factory=dict)
    refused: dict[str, Refused] = field(default_factory=dict)
    had_ns: dict[str, int] = field(default_factory=dict)
    """Time of the newest sample that the server had of a station when it was asked."""

    def take(self, item: Packet | Refused | Subscribed) -> None:
        if isinstance(item, Packet):
            self.count[item.channel] += 1
            self.newest[item.channel] = item
        elif isinstance(item, Refused):
            self.refused[item.cursor.station if item.cursor else "?"] = item
        elif item.newest_ns is not None:
            self.had_ns[item.station] = item.newest_ns


def check(config: Config, grid: Grid, longest_s: float) -> list[Line]:
    """Listen until every channel was heard, at most so long."""
    settings = [replace(one, connect_s=min(one.connect_s, longest_s)) for one in source_settings(config)]
    source, heard = SeedLinkSource(settings, wanted=shard(config).has), Heard()
    source.start()
    try:
        end_s = time.monotonic() + longest_s
        while (left_s := end_s - time.monotonic()) > 0 and not _has_all(source, heard):
            for item in source.take(256, min(left_s, TICK_S)):
                heard.take(item)
        return report(source.expected(), source.status(), heard, grid, config, longest_s)
    finally:
        source.stop()


def _has_all(source: SeedLinkSource, heard: Heard) -> bool:
    return all(state.connected for state in source.status()) and heard.newest.keys() >= set(
        _channels(source.expected())
    )


def report(
    expected: Expected,
    states: Sequence[SourceStatus],
    heard: Heard,
    grid: Grid,
    config: Config,
    longest_s: float,
) -> list[Line]:
    """A line for each server, each pattern that means nothing, each channel, and each station with records that are refused."""
    lines = [_server(state, longest_s) for state in states]
    for one, state in zip(config.source, states, strict=True):
        if state.stations and config.shard.count == 1:  # what is not here may be another shard's
            lines += [
                (False, f"{text}: matches nothing that the server lists") for text in _nowhere(one.select, expected)
            ]
    future_s = config.windows.future_s
    lines += [_channel(channel, heard, grid, future_s, longest_s) for channel in _channels(expected)]
    lines += [(False, f"{name}: {one.reason}: {one.detail}") for name, one in sorted(heard.refused.items())]
    return lines


def _server(state: SourceStatus, longest_s: float) -> Line:
    if state.connected:
        return True, f"{state.connected}: connected, {len(state.stations)} station(s)"
    told = state.last_error or f"no answer within {longest_s:g} s"
    return False, f"{', '.join(state.servers)}: not connected: {told}"


def _nowhere(select: Sequence[str], expected: Expected) -> Sequence[str]:
    """The patterns that bring no channel."""
    stations = []
    for subject, components in expected.items():
        network, station, location, band, source = subject.removeprefix("FDSN:").split("_")
        channels = frozenset(Channel(location, band, source, component) for component in components)
        stations.append(ListedStation(network, station, channels, None, None, None))
    return unmatched([parse_pattern(text) for text in select], Listing(False, tuple(stations)))


def _channel(channel: str, heard: Heard, grid: Grid, future_s: float, longest_s: float) -> Line:
    packet = heard.newest.get(channel)
    if packet is None:
        had_ns = heard.had_ns.get(station_of(channel))
        had = f"; the station's newest sample there is of {format_ns(had_ns)}" if had_ns else ""
        return False, f"{_name(channel)}: nothing came within {longest_s:g} s{had}"
    latency_s = (packet.received_ns - packet.end_ns) / NS
    fault = ""
    if ratio(packet.rate, grid.rate) is None:
        fault = f"not used, no resampling to {grid.rate} Hz: "
    elif latency_s < -future_s:
        fault = f"not used, ahead of this machine's clock by more than {future_s:g} s (windows.future_s): "
    latency = f"{latency_s:.1f} s" if abs(latency_s) < LONG_S else str(timedelta(seconds=round(latency_s)))
    told = f"{float(packet.rate):g} Hz, latency {latency}, {heard.count[channel]} packet(s)"
    return not fault, f"{_name(channel)}: {fault}{told}"


def _channels(expected: Expected) -> list[str]:
    return sorted(f"{subject}_{component}" for subject, components in expected.items() for component in components)


def _name(channel: str) -> str:
    """``BW.UH3..SHZ``."""
    network, station, location, *codes = channel.removeprefix("FDSN:").split("_")
    return f"{network}.{station}.{location}.{''.join(codes)}"
