"""INFO's answers: XML, cut into 512-byte miniSEED records of text, as SeedLink 3 packets.

Attributes and formats are ringserver 4.5.3's: ``begin_seq`` and ``end_seq`` are decimal there (SeisComP writes
hexadecimal), ``end_seq`` is the next number, times are RFC 3339. Beyond it, GAPS and ALL are answered, and streams are
listed before their first packet is out, so that a client can ask for them by name. An unknown level is answered as ID,
on channel ERR instead of INF.
"""

from __future__ import annotations

import struct
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from .records import RECORD_BYTES, Record
from .ring import NS, SEQUENCES, Held, Numbering, Ring, Span, spans

LEVELS = ("ID", "CAPABILITIES", "STATIONS", "STREAMS", "GAPS", "CONNECTIONS", "ALL")
CAPABILITIES = (
    "dialup",
    "multistation",
    "window-extraction",
    *(f"info:{level.lower()}" for level in LEVELS),
)
TEXT_AT = 56
"""Where the text of an INFO record begins: behind the fixed header and blockette 1000."""
TEXT_BYTES = RECORD_BYTES - TEXT_AT
GAP_SAMPLES = 1.5
"""Two records of a stream that are further apart than so many samples have a gap between them."""
DECLARATION = '<?xml version="1.0" encoding="utf-8"?>'
HEADER = struct.Struct(">6s2s5s2s3s2sHHBBBBHHhhBBBBiHHHHBBBB")
"""miniSEED 2's fixed header (48 bytes) and blockette 1000, big-endian."""
TEXT_ENCODING, BIG_ENDIAN, LENGTH_POWER = 0, 1, 9


@dataclass(frozen=True, slots=True)
class Connection:
    """What CONNECTIONS says of one client."""

    host: str
    port: int
    since_ns: int
    current_sequence: int
    packets: int
    sent_bytes: int


@dataclass(frozen=True, slots=True)
class Facts:
    """What INFO speaks of."""

    ring: Ring
    known: tuple[Record, ...]
    """The first record of each stream that was or will be released."""
    software: str
    organisation: str
    started_ns: int
    connections: tuple[Connection, ...] = ()


def answer(level: str, facts: Facts, now_ns: int) -> bytes:
    """All packets of the answer to ``INFO level``."""
    channel = b"INF" if level in LEVELS else b"ERR"
    text = (DECLARATION + ET.tostring(document(level, facts), encoding="unicode")).encode("utf-8")
    pieces = [text[at : at + TEXT_BYTES] for at in range(0, len(text), TEXT_BYTES)]
    heads = [b"SLINFO *"] * (len(pieces) - 1) + [b"SLINFO  "]
    records = (_record(number, channel, piece, now_ns) for number, piece in enumerate(pieces, 1))
    return b"".join(head + record for head, record in zip(heads, records, strict=True))


def document(level: str, facts: Facts) -> ET.Element:
    started = rfc3339(facts.started_ns, digits=0)
    root = ET.Element("seedlink", software=facts.software, organization=facts.organisation, started=started)
    if level in ("CAPABILITIES", "ALL"):
        for name in CAPABILITIES:
            ET.SubElement(root, "capability", name=name)
    if level in ("STATIONS", "STREAMS", "GAPS", "ALL"):
        stations = _stations(root, facts)
        if level != "STATIONS":
            _streams(stations, facts, _gaps(facts.ring) if level in ("GAPS", "ALL") else {})
    if level in ("CONNECTIONS", "ALL"):
        for connection in facts.connections:
            _connection(root, connection)
    return root


def catalogue(facts: Facts) -> bytes:
    """CAT's answer: network and station, a line each, then END."""
    names = sorted({(record.network, record.station) for record in facts.known})
    lines = [f"{network:<2} {station:<5}" for network, station in names]
    return "".join(f"{line}\r\n" for line in [*lines, "END"]).encode("ascii", errors="replace")


def _stations(root: ET.Element, facts: Facts) -> dict[str, ET.Element]:
    held = spans(facts.ring, lambda record: record.station_id)
    known = {record.station_id: record for record in facts.known}
    return {name: _station(root, known[name], held.get(name), facts.ring) for name in sorted(known)}


def _station(root: ET.Element, record: Record, span: Span | None, ring: Ring) -> ET.Element:
    first, following = _numbers(record, span, ring)
    return ET.SubElement(
        root,
        "station",
        name=record.station,
        network=record.network,
        description=f"Station ID {record.station_id}",
        begin_seq=str(first),
        end_seq=str(following),
        stream_check="enabled",
    )


def _numbers(record: Record, span: Span | None, ring: Ring) -> tuple[int, int]:
    """Number of the oldest packet of a station, and the one after its newest.

    As ringserver lists them, the numbers of a whole server do not wrap: beside another station's 000010, FFFFF0 would
    not tell which is the older.
    """
    oldest = ring.get(ring.first_index)
    if ring.numbering is Numbering.SERVER and oldest is not None:
        first, following = (span.first.index, span.last.index + 1) if span else (ring.next_index,) * 2
        return oldest.sequence + first - oldest.index, oldest.sequence + following - oldest.index
    if span is not None:
        return span.first.sequence, (span.last.sequence + 1) % SEQUENCES
    return (ring.next_sequence(record.station_id),) * 2


def _streams(stations: dict[str, ET.Element], facts: Facts, gaps: dict[str, list[tuple[Held, Held]]]) -> None:
    held = spans(facts.ring, lambda record: record.stream_id)
    for record in sorted(facts.known, key=lambda record: record.stream_id):
        element = _stream(stations[record.station_id], record, held.get(record.stream_id))
        for before, after in gaps.get(record.stream_id, ()):
            begin, end = rfc3339(before.record.end_ns), rfc3339(after.record.start_ns)
            ET.SubElement(element, "gap", begin_time=begin, end_time=end)


def _stream(station: ET.Element, record: Record, span: Span | None) -> ET.Element:
    begin_ns, end_ns = (span.first.record.start_ns, span.last.record.end_ns) if span else (record.start_ns,) * 2
    return ET.SubElement(
        station,
        "stream",
        location=record.location,
        seedname=record.channel,
        type="D",
        begin_time=rfc3339(begin_ns),
        end_time=rfc3339(end_ns),
    )


def _connection(root: ET.Element, connection: Connection) -> None:
    station = ET.SubElement(
        root,
        "station",
        name="CLIENT",
        network="SL",
        description="Client",
        begin_seq="0",
        end_seq="0",
        stream_check="enabled",
    )
    ET.SubElement(
        station,
        "connection",
        host=connection.host,
        port=str(connection.port),
        ctime=rfc3339(connection.since_ns, digits=0),
        begin_seq="0",
        current_seq=str(connection.current_sequence),
        sequence_gaps="0",
        txcount=str(connection.packets),
        totBytes=str(connection.sent_bytes),
        begin_seq_valid="yes",
        realtime="yes",
        end_of_data="no",
    )


def _gaps(ring: Iterable[Held]) -> dict[str, list[tuple[Held, Held]]]:
    """Neighbours in time with samples missing between them, by stream."""
    streams: defaultdict[str, list[Held]] = defaultdict(list)
    for held in ring:
        streams[held.record.stream_id].append(held)
    return {name: _holes(sorted(found, key=lambda h: h.record.start_ns)) for name, found in streams.items()}


def _holes(held: list[Held]) -> list[tuple[Held, Held]]:
    return [(a, b) for a, b in pairwise(held) if b.record.start_ns - a.record.end_ns > GAP_SAMPLES * NS / a.record.rate]


def rfc3339(time_ns: int, digits: int = 6) -> str:
    """``2010-05-27T16:24:03.679998Z``; with no digits whole seconds."""
    seconds, rest = divmod(time_ns, NS)
    fraction = f".{rest // 1000:06d}" if digits else ""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"


def _record(number: int, channel: bytes, text: bytes, now_ns: int) -> bytes:
    now = datetime.fromtimestamp(now_ns // NS, UTC)
    day = now.timetuple().tm_yday
    fixed = (b"%06d" % (number % 1_000_000), b"D ", b"INFO ", b"  ", channel, b"XX")
    moment = (now.year, day, now.hour, now.minute, now.second, 0, 0)
    rest = (len(text), 0, 0, 0, 0, 0, 1, 0, TEXT_AT, 48)
    blockette = (1000, 0, TEXT_ENCODING, BIG_ENDIAN, LENGTH_POWER, 0)
    return (HEADER.pack(*fixed, *moment, *rest, *blockette) + text).ljust(RECORD_BYTES, b"\0")
