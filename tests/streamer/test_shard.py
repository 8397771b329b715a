from __future__ import annotations

from collections import Counter
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.composition import shard
from streamer.config import ConfigError, load
from streamer.shard import Shard, owner

LEAST = '[[source]]\nservers = ["seedlink://x"]\nselect = ["*.*"]\n'
NETWORK = [f"{network}_S{number:03d}" for network in ("GE", "BW", "XX") for number in range(400)]
names = st.from_regex(r"[A-Z0-9]{1,2}_[A-Z0-9]{1,5}", fullmatch=True)


@given(names, st.integers(1, 40))
def test_each_station_has_exactly_one_shard(station: str, count: int) -> None:
    assert [Shard(count, index).has(station) for index in range(count)].count(True) == 1


@given(names, st.integers(1, 40))
def test_one_shard_more_moves_only_what_it_takes_itself(station: str, count: int) -> None:
    before, after = owner(station, count), owner(station, count + 1)
    assert after in {before, count}


@pytest.mark.parametrize("count", [2, 3, 4, 7, 12])
def test_shards_are_of_about_one_size(count: int) -> None:
    sizes = Counter(owner(station, count) for station in NETWORK)
    expected = len(NETWORK) / count
    assert len(sizes) == count
    assert all(abs(size - expected) < 4 * expected**0.5 for size in sizes.values())  # four standard deviations


def test_about_a_share_of_the_stations_moves() -> None:
    moved = sum(owner(station, 4) != owner(station, 5) for station in NETWORK)
    assert moved == pytest.approx(len(NETWORK) / 5, rel=0.25)


def test_the_function_stays_what_it_was() -> None:
    """Daemons of two releases share a network while one after the other is brought up to date."""
    stations = ["GE_APE", "BW_UH1", "BW_UH2", "BW_UH3", "CH_DAVOX"]
    by_hand = [max(range(4), key=lambda n: sha256(f"{n}|{name}".encode()).hexdigest()) for name in stations]
    assert [owner(name, 4) for name in stations] == by_hand


def test_the_index_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "quake.toml"
    path.write_text(f"{LEAST}[shard]\ncount = 4\n")
    monkeypatch.setenv("QUAKE_SHARD__INDEX", "3")
    assert shard(load(path)) == Shard(4, 3)
    monkeypatch.setenv("QUAKE_SHARD__INDEX", "4")
    with pytest.raises(ConfigError, match=r"shard\.index \(4\) is not below shard\.count \(4\)"):
        load(path)
