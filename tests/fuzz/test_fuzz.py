"""Mutated input of every kind, a little in each run of the tests: what `make fuzz` does for long."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest
from drill_report import Row, tell
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from obspy.clients.seedlink.seedlinkexception import SeedLinkException
from targets import NEXT, TARGETS, Target, greeting, info_packet, obspy, resident_bytes, seedlink_client

from streamer.source import obspy_transport, seedlink_transport

SABOTAGE = "source/records.py: decode keeps each payload (seen on record; one measure serves all)"
EDIT = st.tuples(
    st.floats(0, 1),
    st.integers(0, 8),
    st.binary(max_size=4) | st.sampled_from([b"\xff" * 4, bytes(4), b"\x80\0\0\0", b"[" * 99, b"9" * 99, b"\r\n"]),
)
"""Where, how many bytes go, and what comes in their place."""


def mutated(seed: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    data = bytearray(seed)
    for share, gone, come in edits:
        at = int(share * len(data))
        data[at : at + gone] = come
    return bytes(data)


def inputs(target: Target) -> st.SearchStrategy[bytes]:
    seeded = st.builds(mutated, st.sampled_from(target.seeds()), st.lists(EDIT, max_size=6))
    return seeded | st.binary(max_size=2_000)


@pytest.mark.parametrize("name", TARGETS)
def test_nothing_but_the_promised_errors(name: str) -> None:
    target = TARGETS[name]

    @settings(
        max_examples=150,
        deadline=5_000,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(inputs(target))
    def run(data: bytes) -> None:
        target.run(data)

    for seed in target.seeds():
        target.run(seed)
    run()


@pytest.mark.drill
@pytest.mark.parametrize("name", TARGETS)
def test_memory_stays(name: str) -> None:
    """After a warm-up, thousands of inputs more leave nothing behind."""
    chance, target = random.Random(1), TARGETS[name]
    seeds = target.seeds()

    def many(count: int) -> int:
        for _ in range(count):
            edits: list[Any] = [
                (chance.random(), chance.randrange(9), chance.randbytes(chance.randrange(5))) for _ in range(4)
            ]
            target.run(mutated(chance.choice(seeds), edits))
        return resident_bytes()

    before = many(500)
    grown = many(1_500) - before
    promised = "no error but the promised ones, no hang, no memory left behind"
    measured = f"1,500 inputs: {grown / 2**20:.1f} MiB more"
    tell(Row("strangers", f"mutated bytes: {name}", promised, measured=measured, sabotage=SABOTAGE))
    assert grown < 16 << 20


@pytest.mark.parametrize("run", [obspy, seedlink_client])
def test_an_info_reply_without_end_is_given_up(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (obspy_transport, seedlink_transport):
        monkeypatch.setattr(module, "MAX_LISTING_BYTES", 10_000)
    told: list[str] = []
    monkeypatch.setattr(
        "targets.suppress", lambda *errors: _Told(told, errors)
    )  # targets hide what they promise: here it is looked at
    accepted = b"OK\r\n" + NEXT if run is seedlink_client else b""
    run(greeting() + accepted + 100 * info_packet(b"<seedlink>" + b"a" * 400, last=False))
    assert any("an INFO reply of more than 10000 bytes" in text for text in told), told


def test_no_text_of_an_info_reply_comes_from_beyond_its_record() -> None:
    """ObsPy copies as many bytes as the header claims, and gave away 65 kB of this process."""
    packet = bytearray(info_packet(b"<seedlink/>"))
    packet[8 + 30 : 8 + 32] = b"\xff\xff"
    state = obspy_transport._State()
    state.append_bytes(bytes(packet))
    try:
        assert len(state.get_packet().get_string_payload()) <= 448
    except SeedLinkException:
        return


class _Told(suppress):
    """Suppresses, and keeps what was said."""

    def __init__(self, told: list[str], errors: tuple[type[BaseException], ...]) -> None:
        super().__init__(*errors)
        self._told = told

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        if error is not None:
            self._told.append(str(error))
        return bool(super().__exit__(kind, error, trace))
