"""The SeedLink source: `packets()`, an iterator that hides connecting, resuming and failing over.

Read `source` first, then `supervisor` (threads), `session` (one visit to one server) and the pure modules they ask:
`address`, `listing`, `selection`, `resume`, `progress`, `rotation`, `records`. The two transports are `obspy_transport`
(SeedLink 3) and `seedlink_transport` (SeedLink 3 and 4, TLS, credentials). Nothing here stores, judges or scores data.
"""

from streamer.source.address import AddressError, parse_address, redact
from streamer.source.records import decode
from streamer.source.resume import ResumePoint
from streamer.source.selection import SelectionError, parse_pattern
from streamer.source.source import SeedLinkSource, SourceSettings
from streamer.source.supervisor import EventKind, Restart, SourceStatus
from streamer.source.transport import Cause

__all__ = [
    "AddressError",
    "Cause",
    "EventKind",
    "Restart",
    "ResumePoint",
    "SeedLinkSource",
    "SelectionError",
    "SourceSettings",
    "SourceStatus",
    "decode",
    "parse_address",
    "parse_pattern",
    "redact",
]
