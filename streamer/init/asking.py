"""What servers say of their stations: INFO STREAMS of a SeedLink server, StationXML of an FDSN station service."""

from __future__ import annotations

from collections.abc import Iterable

from obspy import Inventory, UTCDateTime
from obspy.clients.fdsn import Client

from streamer.source.address import Address
from streamer.source.listing import Listing, ListingError
from streamer.source.session import Visits, connect
from streamer.source.transport import Limits, TransportError

ANSWER_S = 10.0
"""Longest silence of a SeedLink server that somebody waits for at a terminal."""
SERVICE_S = 60.0
"""Longest time for an FDSN service: hundreds of stations take it a while."""
DAY_S = 86_400.0


class AskError(Exception):
    """A server that does not answer, or not with what is asked for."""


def listing(address: Address) -> Listing:
    """Raises AskError."""
    limits = Limits(connect_s=ANSWER_S, silence_s=ANSWER_S)
    try:
        with Visits(connect, limits).to(address) as connection:
            connection.open()
            found = connection.listing()
    except TransportError as error:
        raise AskError(f"{address}: {error.detail}") from error
    except ListingError as error:
        text = "name channels in full, as in --station BW.UH3..SH?"
        raise AskError(f"{address}: {error}; {text}") from error
    if not found.stations:
        raise AskError(f"{address}: it lists no station")
    return found


def inventory(service: str, rows: Iterable[tuple[str, str, str, str]], level: str) -> Inventory:
    """What a service knows of (network, station, location, channel) today. Raises AskError."""
    now = UTCDateTime()
    try:
        client = Client(service, timeout=SERVICE_S, _discover_services=False)
        return client.get_stations_bulk([(*row, now - DAY_S, now) for row in rows], level=level)
    except Exception as error:  # besides its own, ObsPy raises whatever reading an answer does
        told = str(error).strip().splitlines() or [type(error).__name__]
        raise AskError(f"--fdsn {service}: {told[0]}") from error
