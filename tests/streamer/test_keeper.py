"""What keeps a shard's daemon on a node, without Ray. The daemon is the real one, which refuses a pinned model at once."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from streamer import keeper
from streamer.config import ConfigError, load
from streamer.keeper import Keeper, Plan


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "quake.toml"
    path.write_text(
        'state = "state"\n[[source]]\nservers = ["seedlink://127.0.0.1:1"]\nselect = ["*.*"]\n'
        f'[model]\nsha256 = "{"0" * 64}"\n[metrics]\nport = 9200\n[shard]\ncount = 3\n'
    )
    return path


def said(kept: Keeper) -> tuple[list[str], int]:
    lines: list[str] = []
    while True:
        more = kept.said()
        lines += more.lines
        if more.code is not None:
            return lines, more.code


def test_what_the_daemon_says_and_how_it_ends(config: Path) -> None:
    kept = Keeper()
    assert ", process " in kept.start(Plan.of(config, 3, ["--log-level", "error"]), 2)
    lines, code = said(kept)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].endswith(f"pinned is {'0' * 64}")


def test_a_daemon_is_ready_when_it_says_so(config: Path) -> None:
    """And ends when it is told to."""
    config.write_text(config.read_text().replace("[model]\nsha256", "[model]\n#").replace("9200", "0"))
    kept = Keeper()
    kept.start(Plan.of(config, 3, []), 1)
    lines: list[str] = []
    while not (one := kept.said()).is_ready:
        lines += one.lines
        assert one.code is None, lines
    kept.stop()
    lines, code = said(kept)
    assert code == 0
    assert (config.parent / "state" / "shard-1" / "outbox.sqlite").exists()


def test_another_quake_or_another_file_is_refused_with_the_node(config: Path) -> None:
    plan = Plan.of(config, 3, [])
    with pytest.raises(ConfigError, match=rf"^node \S+: quake is {version('quake')} here, and 0 where the shards"):
        Keeper().start(replace(plan, quake="0"), 0)
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ConfigError, match=r"^node \S+: \S+quake.toml: is another file than where the shards are kept"):
        Keeper().start(plan, 0)
    config.unlink()
    with pytest.raises(ConfigError, match=r"^node \S+: \S+quake.toml: No such file or directory"):
        Keeper().start(plan, 0)
    with pytest.raises(ConfigError, match=r"quake.toml: No such file or directory"):
        Plan.of(config, 3, [])


def test_a_program_that_cannot_be_started_is_told_with_the_node(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper.sys, "executable", "/nowhere/python")
    with pytest.raises(ConfigError, match=r"^node \S+: .*No such file or directory: '/nowhere/python'"):
        Keeper().start(Plan.of(config, 3, []), 0)


@pytest.mark.parametrize(("configured", "ports"), [(9200, {"9200", "9201"}), (0, {"0"})])
def test_shards_of_one_node_share_neither_port_nor_folder_nor_name(
    config: Path, configured: int, ports: set[str]
) -> None:
    config.write_text(config.read_text().replace("port = 9200", f"port = {configured}"))
    plan, told = Plan.of(config, 3, []), load(config)
    both = [plan.settings(told, index) for index in range(2)]
    assert {one["QUAKE_METRICS__PORT"] for one in both} == ports
    assert {one["QUAKE_SHARD__COUNT"] for one in both} == {"3"}
    for name in ("QUAKE_STATE", "QUAKE_DAEMON", "QUAKE_SHARD__INDEX"):
        assert len({one[name] for one in both}) == 2


def test_what_the_node_says_otherwise_does_not_reach_the_daemon() -> None:
    """Both are set, its configuration would say; and who started the cluster would be told of each daemon."""
    own = {
        "quake_state_file": "/x",
        "Quake_State": "/y",
        "NOTIFY_SOCKET": "/z",
        "QUAKE_REDIS_URL_FILE": "/r",
        "HOME": "/",
    }
    assert keeper._without(own, {"QUAKE_STATE": "/s"}) == {"QUAKE_REDIS_URL_FILE": "/r", "HOME": "/"}
