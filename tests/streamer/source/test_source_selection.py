"""address.py, listing.py, selection.py: what the user writes and what servers answer."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from source_peers import listing_4

from streamer.source.address import AddressError, Transport, parse_address, redact
from streamer.source.listing import Channel, ListedStation, Listing, ListingError, parse_json, parse_time, parse_xml
from streamer.source.selection import (
    NOTHING,
    SelectionError,
    merge,
    parse_pattern,
    select,
    select_unlisted,
    unmatched,
)

XML = """<?xml version="1.0"?><seedlink software="SeedLink v3.3 (2020.122)" organization="x">
<station name="UH1" network="BW" description="" begin_seq="00A0FF" end_seq="00B000" stream_check="enabled">
 <stream location="" seedname="SHZ" type="D" begin_time="2010/05/27 16:20:00.0000" end_time="2010/05/27 16:27:00.5000"/>
 <stream location="" seedname="LOG" type="L" begin_time="2010/05/27 16:20:00.0000" end_time="2010/05/27 18:00:00"/>
</station>
<station name="UH3" network="BW" description="" begin_seq="000001" end_seq="000010" stream_check="enabled">
 <stream location="  " seedname="SHZ" type="D"/><stream location="" seedname="SHN" type="D"/>
 <stream location="" seedname="SHE" type="D"/><stream location="" seedname="SOH" type="D"/>
 <stream location="00" seedname="HHZ" type="D"/><stream location="00" seedname="HHQ" type="D"/>
 <stream location="10" seedname="HN1" type="D"/><stream location="" seedname="VMZ" type="D"/>
</station></seedlink>"""


@pytest.fixture
def listing() -> Listing:
    return parse_xml(XML, shared=False)


def chosen(listing: Listing, *texts: str) -> dict[str, tuple[str, ...]]:
    return dict(select([parse_pattern(text) for text in texts], listing).stations)


def test_xml(listing: Listing) -> None:
    first = listing.stations[0]
    assert (first.name, first.begin, first.end) == ("BW_UH1", 0xA0FF, 0xB000)
    assert first.channels == {Channel("", "S", "H", "Z")}
    assert first.newest_ns == 1_274_977_620_500_000_000


def test_decimal_numbers_are_told_from_hexadecimal_ones() -> None:
    text = '<seedlink><station name="A" network="X" begin_seq="{}" end_seq="{}"/></seedlink>'
    assert parse_xml(text.format("000010", "000020"), shared=False).stations[0].end == 0x20
    assert parse_xml(text.format("10", "20"), shared=False).stations[0].end == 20
    assert parse_xml(text.format("100010", "100020"), shared=True).stations[0].end == 100_020


def test_json() -> None:
    text = listing_4({"BW_UH3": (["_S_H_Z", "00_H_H_1", "_XY_ABC_Z"], 5, 9)})
    station = parse_json(text, shared=False).stations[0]
    assert (station.name, station.begin, station.end) == ("BW_UH3", 5, 9)
    assert Channel("", "XY", "ABC", "Z") in station.channels


@pytest.mark.parametrize("text", ["", "<html/>", "<seedlink", "ERROR"])
def test_no_listing(text: str) -> None:
    with pytest.raises(ListingError):
        parse_xml(text, shared=False)


@given(st.text(max_size=80))
def test_listings_never_surprise(text: str) -> None:
    for parse in (parse_xml, parse_json):
        with suppress(ListingError):
            parse(text, False)
    parse_time(text)


def test_wildcards_become_names(listing: Listing) -> None:
    assert chosen(listing, "BW.UH*") == {"BW_UH1": ("--SHZ",), "BW_UH3": ("--SH?", "00HHZ", "10HN1")}
    assert chosen(listing, "BW.UH3..SH?") == {"BW_UH3": ("--SH?",)}
    assert chosen(listing, "BW.UH3.--.SHZ") == {"BW_UH3": ("--SHZ",)}
    assert chosen(listing, "*.*.*.?HZ") == {"BW_UH1": ("--SHZ",), "BW_UH3": ("--SHZ", "00HHZ")}
    assert chosen(listing, "BW.UH3.*.VM?") == {"BW_UH3": ("--VMZ",)}, "named instruments are taken at their word"
    assert chosen(listing, "GE.*") == {}


def test_expected_components(listing: Listing) -> None:
    assert select([parse_pattern("BW.UH3")], listing).expected == {
        "FDSN:BW_UH3__S_H": frozenset("ZNE"),
        "FDSN:BW_UH3_00_H_H": frozenset("Z"),
        "FDSN:BW_UH3_10_H_N": frozenset("1"),
    }
    assert unmatched([parse_pattern("BW.UH1"), parse_pattern("GE.APE")], listing) == ("GE.APE",)


def test_merge_keeps_what_a_restarted_server_does_not_list_yet(listing: Listing) -> None:
    all_of_it = select([parse_pattern("BW.*")], listing)
    part = select([parse_pattern("BW.UH1")], listing)
    assert merge(all_of_it, part) == merge(part, all_of_it) == all_of_it
    assert merge(NOTHING, part) == part


def test_without_a_listing() -> None:
    selection = select_unlisted([parse_pattern("BW.UH3..SH?"), parse_pattern("BW.UH1.00.EHZ")], "seedlink://x:1")
    assert selection.stations == {"BW_UH1": ("00EHZ",), "BW_UH3": ("--SH?",)}
    assert selection.expected == {"FDSN:BW_UH1_00_E_H": frozenset("Z"), "FDSN:BW_UH3__S_H": frozenset("ZNE")}
    for vague in ("BW.UH*", "BW.UH3", "BW.UH3..*", "BW.UH3.*.SHZ", "BW.UH3..S?Z"):
        with pytest.raises(SelectionError, match=r"seedlink://x:1 .*INFO STREAMS.*BW\.UH3\.\.SH\?"):
            select_unlisted([parse_pattern(vague)], "seedlink://x:1")


@pytest.mark.parametrize("text", ["", "BW", ".UH3", "BW.", "BW.UH3..SHZ.D"])
def test_bad_patterns(text: str) -> None:
    with pytest.raises(SelectionError, match=r"NET\.STA"):
        parse_pattern(text)


CODES = st.text("ABZNE123?", min_size=1, max_size=1)


@given(st.sets(st.builds(Channel, st.sampled_from(["", "00"]), CODES, st.sampled_from("HNM"), CODES)))
def test_selectors_cover_what_is_expected_and_no_more(channels: set[Channel]) -> None:
    listing = Listing(False, (ListedStation("BW", "A", frozenset(channels), 1, 2, None),))
    selection = select([parse_pattern("BW.A")], listing)
    wanted = {c for c in channels if c.subsource in "ZNE123" and c.source in "HN"}
    assert sum(map(len, selection.expected.values())) == len(wanted)
    for channel in channels:
        code = f"{channel.location:-<2}{channel.band}{channel.source}"
        taken = {f"{code}?", f"{code}{channel.subsource}"} & set(selection.stations.get("BW_A", ()))
        assert bool(taken) == (channel in wanted)


def test_addresses() -> None:
    plain = parse_address("seedlink://geofon.gfz.de")
    assert (plain.host, plain.port, plain.transport, plain.tls) == ("geofon.gfz.de", 18000, Transport.OBSPY, False)
    assert plain.server == "seedlink://geofon.gfz.de:18000"
    assert parse_address("seedlink://h:1?transport=seedlink-client").server == "seedlink4://h:1"
    assert parse_address("seedlinks://[::1]").server == "seedlinks://[::1]:18500"
    assert parse_address("seedlinks://h?verify=no").verify is False
    assert parse_address("seedlink4://me:p%40ss@h").auth == ("me", "p@ss")
    assert parse_address("seedlinks://abc.def@h").auth == "abc.def"


def test_secrets_are_not_shown() -> None:
    address = parse_address("seedlinks://me:hunter2@host:18500")
    assert "hunter2" not in f"{address} {address!r} {address.server}"
    for url in ("seedlink://me:hunter2@host", "http://me:hunter2@host", "seedlinks://me:hunter2@host?x=1"):
        with pytest.raises(AddressError) as caught:
            parse_address(url)
        assert "hunter2" not in str(caught.value)
    assert redact("seedlink://host:1") == "seedlink://host:1"


@pytest.mark.parametrize(
    "url",
    ["host:18000", "seedlink://", "seedlink://h/path", "seedlink://h:x", "seedlink://h?transport=ftp",
     "seedlinks://h?transport=obspy", "seedlink://h?verify=maybe", "seedlink://h?timeout=3"],
)  # fmt: skip
def test_bad_addresses(url: str) -> None:
    with pytest.raises(AddressError):
        parse_address(url)
