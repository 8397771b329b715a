"""``quake-streamer init``: options and questions to a file. Exit codes: 0 written; 1: a server does not answer; 2: wrong usage."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from streamer.config import ConfigError, resolve

if TYPE_CHECKING:
    from obspy import Inventory

    from streamer.init.choosing import Sensor
    from streamer.source.address import Address
    from streamer.source.listing import Listing
    from streamer.source.selection import Pattern

PRESETS = {"raspberry-shake": ("rs.local", "AM.*")}
"""Name -> server and stations where none are given. A Shake's own server has its one station; the name is as it is delivered."""
ALL = 20
"""Stations that are all taken where nobody says which."""
FLOW_S = 30
"""In the command that is told next: two records of a vertical at 50 Hz, and more."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add this program's arguments."""
    parser.add_argument("file", nargs="?", type=Path, default=Path("quake.toml"))
    parser.add_argument(
        "--server",
        "--host",
        action="append",
        metavar="HOST[:PORT]",
        help="SeedLink server, or a URL as in `servers`; given again: a fall-back",
    )
    parser.add_argument(
        "--station",
        action="append",
        metavar="NET.STA",
        help="with * and ?; also NET.STA.LOC.CHA. If not given those of the region, or all of a small server",
    )
    parser.add_argument("--preset", choices=PRESETS, help="server and stations of a kind of instrument")
    parser.add_argument(
        "--region", nargs=4, type=float, metavar="DEGREES", help="south, north, west, east; needs coordinates"
    )
    places = parser.add_mutually_exclusive_group()
    places.add_argument("--inventory", type=Path, metavar="FILE", help="StationXML: coordinates, orientation and gain")
    places.add_argument(
        "--fdsn",
        metavar="SERVICE",
        help="FDSN station service to ask for these, as https://geofon.gfz.de or by ObsPy's name for it",
    )
    parser.add_argument("--force", action="store_true", help="write over a file that is there")


def run(arguments: argparse.Namespace) -> int:
    from streamer.init.asking import AskError

    path: Path = arguments.file
    beside = path.with_name(f"{path.stem}-stations.xml") if arguments.fdsn else None
    _refuse_existing([path, *([beside] if beside else [])], arguments.force)
    try:
        servers, found, known = _found(arguments)
    except AskError as error:
        sys.stderr.write(f"quake-streamer: {error}\n")
        return 1
    _write(path, servers, found, arguments.inventory or beside, known, "w" if arguments.force else "x")
    sys.stdout.write(f"{path}: {', '.join(sensor.pattern for sensor in found)} of {servers[0]}\n")
    sys.stdout.write(f"next, whether data flow: quake-streamer check {shlex.quote(str(path))} --flow {FLOW_S}\n")
    return 0


def _refuse_existing(paths: list[Path], force: bool) -> None:
    for path in paths:
        if not path.parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {path.parent}")
        if path.exists() and not force:
            raise ConfigError(f"{path} is there already; --force writes over it")


def _found(arguments: argparse.Namespace) -> tuple[list[str], list[Sensor], Inventory | None]:
    """Servers, sensors, and what an FDSN service says of these. Raises ConfigError, AskError."""
    from streamer.init import asking, choosing

    servers, addresses = _servers(arguments)
    texts = arguments.station or ([PRESETS[arguments.preset][1]] if arguments.preset else [])
    patterns = _patterns(texts)
    found = None if arguments.region else _spelled_out(patterns, addresses[0])
    if found is None:
        listing = asking.listing(addresses[0])
        if arguments.region:
            listing = _within(listing, arguments)
        patterns = patterns or _patterns(_which(listing, is_chosen=bool(arguments.region)))
        if wrong := choosing.unlisted(patterns, listing):
            raise ConfigError("\n".join(wrong))
        found = choosing.sensors(patterns, listing)
    if not found:
        raise ConfigError(f"{addresses[0]}: none of the stations has a vertical of 10 Hz or more; name its channels")
    if not arguments.fdsn:
        return servers, found, None
    rows = [(s.network, s.station, s.location or "--", f"{s.band}{s.source}?") for s in found]
    return servers, found, asking.inventory(arguments.fdsn, rows, "channel")


def _servers(arguments: argparse.Namespace) -> tuple[list[str], list[Address]]:
    """As the file names them, and where they are."""
    from streamer.source.address import AddressError, parse_address

    preset = PRESETS[arguments.preset][0] if arguments.preset else ""
    given = arguments.server or [preset or _asked("SeedLink server (HOST or HOST:PORT): ")]
    if not given[0]:
        raise ConfigError("--server HOST[:PORT] or --preset is needed")
    urls = [text if "://" in text else f"seedlink://{text}" for text in given]
    try:
        addresses = [parse_address(url) for url in urls]
    except AddressError as error:
        raise ConfigError(f"--server: {error}") from error
    if any(address.auth for address in addresses):
        raise ConfigError(
            "--server: a password would stand in the file; leave it out, and give QUAKE_SOURCE to the daemon"
        )
    return [url if "?" in url else address.server for url, address in zip(urls, addresses, strict=True)], addresses


def _patterns(texts: list[str]) -> list[Pattern]:
    from streamer.source.selection import SelectionError, parse_pattern

    try:
        return [parse_pattern(text) for text in texts]
    except SelectionError as error:
        raise ConfigError(f"--station {error}") from error


def _spelled_out(patterns: list[Pattern], address: Address) -> list[Sensor] | None:
    """The sensors of patterns that name everything: nobody need be asked. None where one leaves something open."""
    from streamer.init.choosing import Sensor
    from streamer.source.selection import SelectionError, select_unlisted

    try:
        expected = select_unlisted(patterns, address.server).expected
    except SelectionError:
        return None
    return [Sensor.of(subject, components) for subject, components in expected.items()] or None


def _within(listing: Listing, arguments: argparse.Namespace) -> Listing:
    from streamer.init import asking, choosing
    from streamer.inventory import read_stations

    if arguments.inventory:
        places = read_stations([arguments.inventory], {}).places
    elif arguments.fdsn:
        rows = [(station.network, station.station, "*", "*") for station in listing.stations]
        stations = asking.inventory(arguments.fdsn, rows, "station")
        places = {f"{n.code}_{s.code}": (float(s.latitude), float(s.longitude)) for n in stations for s in n}
    else:
        raise ConfigError("--region needs coordinates: --inventory FILE or --fdsn SERVICE")
    there = choosing.within(listing, choosing.Region(*arguments.region), places)
    if not there.stations:
        raise ConfigError(
            f"--region: none of {len(listing.stations)} stations lies there, {len(places)} have coordinates"
        )
    return there


def _which(listing: Listing, *, is_chosen: bool) -> list[str]:
    """Patterns of the stations that are wanted, where no option says so."""
    from streamer.init import choosing

    names = sorted(station.name.replace("_", ".") for station in listing.stations)
    if not is_chosen and sys.stdin.isatty():
        sys.stdout.write(f"{len(names)} stations: {choosing.told(names)}\n")
    answer = "" if is_chosen else _asked("Which (NET.STA, with * and ?; nothing: all)? ")
    if not (answer or is_chosen or len(names) <= ALL or sys.stdin.isatty()):
        raise ConfigError(
            f"the server has {len(names)} stations; choose by --station or --region: {choosing.told(names)}"
        )
    return answer.replace(",", " ").split() or names


def _asked(question: str) -> str:
    """Of whoever sits at the terminal; where nobody does, options have to say it."""
    try:
        return input(question).strip() if sys.stdin.isatty() else ""
    except EOFError:
        return ""


def _write(
    path: Path, servers: list[str], found: list[Sensor], inventory: Path | None, known: Inventory | None, how: str
) -> None:
    """Nothing that `quake-streamer check` would refuse."""
    from streamer.init.text import configuration

    beside = None if inventory is None else os.path.relpath(inventory.resolve(), path.resolve().parent)
    text = configuration(servers, found, beside)
    resolve(tomllib.loads(text), path)
    try:
        if known is not None and inventory is not None:
            known.write(str(inventory), format="STATIONXML")
        with path.open(how, encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{error.filename or path}: {error.strerror}") from error
