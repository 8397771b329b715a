"""Bytes in, actions out: lines, commands, limits, and that nothing a client sends raises or hangs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.server import Numbering, protocol
from streamer.server.protocol import Action, Close, Inform, Lines, Send, Session, State, Stream, packet, parse_time
from streamer.server.selection import StationRequest, selector

COMMANDS = sorted([*protocol.HANDLERS, "INFO", "BYE", "XYZ", ""])
WORDS = st.one_of(
    st.sampled_from(
        ["UH3", "BW", "*", "U??", "SHZ", "!SHE", "--SHZ", "000001", "FFFFFF", "2010,05,27", "ID", "-1", "$"]
    ),
    st.text(max_size=12),
)
LINES = st.builds(
    lambda name, words, end: " ".join([name, *words]) + end,
    st.sampled_from(COMMANDS),
    st.lists(WORDS, max_size=4),
    st.sampled_from(["\r", "\n", "\r\n", ""]),
)


def answers(*lines: str) -> list[Action]:
    session = Session(now_ns=lambda: 2 * 10**18)
    return [action for line in lines for action in session.receive(f"{line}\r\n".encode())]


def requested(*lines: str) -> StationRequest:
    (*_, stream) = answers(*lines)
    assert isinstance(stream, Stream)
    return stream.request.stations[0]


@given(
    st.lists(LINES.map(lambda text: text.encode("utf-8", errors="surrogatepass")) | st.binary(max_size=40), max_size=12)
)
@settings(max_examples=300, deadline=None)
def test_whatever_comes_is_answered_and_nothing_raised(chunks: list[bytes]) -> None:
    session = Session()
    for chunk in chunks:
        for action in session.receive(chunk):
            assert isinstance(action, Send | Inform | protocol.Catalogue | Stream | Close)
    assert len(session.lines.pending) <= protocol.MAX_LINE + 1


@given(st.lists(LINES, max_size=6), st.integers(1, 7))
@settings(max_examples=200, deadline=None)
def test_it_does_not_matter_how_bytes_are_cut(lines: list[str], size: int) -> None:
    """CR LF apart: where a cut falls between the two, the LF ends a line of its own, which is empty and ignored."""
    data = "".join(lines).encode("utf-8", errors="replace")
    whole, parts = Session(now_ns=lambda: 0), Session(now_ns=lambda: 0)
    cut = [action for at in range(0, len(data), size) for action in parts.receive(data[at : at + size])]
    assert cut == whole.receive(data)


@given(st.text(max_size=9))
def test_a_selector_is_understood_or_refused(text: str) -> None:
    try:
        pattern = selector(text).pattern
    except ValueError:
        return
    assert pattern.count("_") >= 3


def test_lines_end_in_any_way() -> None:
    assert list(Lines().feed(b"A\rB\nC\r\nD")) == ["A", "B", "C"]


def test_a_line_without_end_is_refused_and_ends_the_connection() -> None:
    session = Session()
    assert session.receive(b"X" * protocol.MAX_LINE) == []
    assert session.receive(b"X") == [Send(b"ERROR\r\n"), Close()]
    assert session.receive(b"HELLO\r\n") == []


def test_the_sequence_has_six_digits_and_wraps() -> None:
    assert packet(0xABCDEF, b"x") == b"SLABCDEFx"
    assert packet(1 << 24, b"") == b"SL000000"


@pytest.mark.parametrize(
    ("text", "expected_ns"),
    [
        ("2010,05,27,16,24,30", 1274977470 * 10**9),
        ("2010,5,27,16,24,30.25", 1274977470_250000000),
        ("2010-05-27T16:24:30.000001Z", 1274977470_000001000),
        ("2010,05,27", 1274918400 * 10**9),
        ("2010", 1262304000 * 10**9),
    ],
)
def test_times(text: str, expected_ns: int) -> None:
    assert parse_time(text) == expected_ns


@pytest.mark.parametrize("text", ["", "now", "2010,13,01", "2010,02,30", "0000,01,01", "2010,1,1,25", "2010,,1"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(protocol.Refusal):
        parse_time(text)


def test_a_station_keeps_what_was_asked_of_it() -> None:
    request = requested("STATION UH3 BW", "SELECT SH?", "SELECT !SHE", "DATA 00000C 2010,05,27,16,24,10", "END")
    assert (request.station, request.sequence) == ("BW_UH3", 12)
    assert request.begin_ns == request.last_start_ns == 1274977450 * 10**9
    assert request.accepts("BW_UH3__S_H_Z")
    assert not request.accepts("BW_UH3__S_H_E")
    assert not request.accepts("BW_UH1__S_H_Z")


def test_extended_replies_say_why() -> None:
    *_, last = answers("CAPABILITIES EXTREPLY", "STATION")
    assert last == Send(b"ERROR\rARGUMENTS STATION requires 1 or 2 arguments\r\n")


def test_too_many_selectors_are_refused() -> None:
    lines = ["SELECT SHZ"] * (protocol.MAX_SELECTORS + 1)
    assert answers(*lines)[-2:] == [Send(b"OK\r\n"), Send(b"ERROR\r\n")]


def test_too_many_stations_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "MAX_STATIONS", 2)
    assert answers("STATION A", "STATION B", "STATION C")[-1] == Send(b"ERROR\r\n")


def test_while_data_flow_only_info_and_bye_are_heard() -> None:
    session = Session()
    session.receive(b"DATA\r\n")
    assert session.state is State.STREAM
    assert session.receive(b"HELLO\r\nINFO STREAMS\r\nINFO ID\r\nBYE\r\n") == [Inform("ID"), Close()]


@pytest.mark.parametrize("numbering", list(Numbering))
def test_greeting_tells_the_numbering(numbering: Numbering) -> None:
    """By the name RingServer, which is all that clients can tell it by; cut as libslink before 2.0 cuts it."""
    (greeting,) = Session(numbering=numbering).receive(b"HELLO\r\n")
    assert isinstance(greeting, Send)
    first = greeting.data.split(b"\r\n")[0]
    assert (b"RingServer" in first) is (numbering is Numbering.SERVER)
    assert b"quake replay" in first
    assert first.startswith(b"SeedLink v3.1 (")
    assert len(first) <= 98


def test_version_four_is_declined() -> None:
    assert answers("SLPROTO 4.0") == [Send(b"ERROR\r\n")]


def test_too_many_wildcards_are_refused_and_names_are_not() -> None:
    names = [f"STATION S{n} BW" for n in range(300)]
    assert answers(*names)[-1] == Send(b"OK\r\n")
    wild = [f"STATION S{n}* BW" for n in range(protocol.MAX_WILDCARDS + 1)]
    assert answers(*wild)[-2:] == [Send(b"OK\r\n"), Send(b"ERROR\r\n")]
