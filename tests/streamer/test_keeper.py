"""What keeps a shard's daemon on a node, without Ray. The daemon is the real one, which refuses a pinned model at once."""

from __future__ import annotations

import threading
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from streamer import keeper
from streamer.config import ConfigError
from streamer.keeper import Keeper, Plan
from streamer.outbox import Outbox, Progress
from streamer.process import alone
from streamer.takeover import SHARD


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "quake.toml"
    path.write_text(
        'state = "state"\n[[source]]\nservers = ["seedlink://127.0.0.1:1"]\nselect = ["*.*"]\n'
        f'[model]\nsha256 = "{"0" * 64}"\n[metrics]\nport = 9200\n[shard]\ncount = 3\n'
    )
    return path


def outbox(config: Path, index: int) -> Outbox:
    folder = config.parent / "state" / f"shard-{index}"
    folder.mkdir(parents=True, exist_ok=True)
    return Outbox(folder / "outbox.sqlite")


def said(kept: Keeper) -> tuple[list[str], int]:
    lines: list[str] = []
    while True:
        more, code = kept.said()
        lines += more
        if code is not None:
            return lines, code


def test_what_the_daemon_says_and_how_it_ends(config: Path) -> None:
    """And Redis will be asked where the shard is, whatever its outbox here knows."""
    with closing(outbox(config, 2)) as before:
        before.commit(Progress(values={SHARD: "2/3 *.*"}))
    kept = Keeper()
    assert ", process " in kept.start(Plan.of(config, ["--log-level", "error"]), 2)
    lines, code = said(kept)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].endswith(f"pinned is {'0' * 64}")
    with closing(outbox(config, 2)) as after:
        assert after.get(SHARD) == ""


def test_another_quake_or_another_file_is_refused_with_the_node(config: Path) -> None:
    plan = Plan.of(config, [])
    with pytest.raises(ConfigError, match=rf"^node \S+: quake is {version('quake')} here, and 0 where the shards"):
        Keeper().start(replace(plan, quake="0"), 0)
    config.write_text(config.read_text() + "\n")
    with pytest.raises(ConfigError, match=r"^node \S+: \S+quake.toml: is another file than where the shards are kept"):
        Keeper().start(plan, 0)
    config.unlink()
    with pytest.raises(ConfigError, match=r"^node \S+: \S+quake.toml: No such file or directory"):
        Keeper().start(plan, 0)
    with pytest.raises(ConfigError, match=r"quake.toml: No such file or directory"):
        Plan.of(config, [])


def test_the_shards_former_daemon_is_waited_for(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = config.parent / "state" / "shard-0"
    waited, end = threading.Event(), threading.Event()

    def be_at_work() -> None:
        with alone(state):
            waited.set()
            end.wait(30)

    monkeypatch.setattr(keeper.time, "sleep", lambda _: end.set())
    thread = threading.Thread(target=be_at_work)
    thread.start()
    assert waited.wait(30)
    kept = Keeper()
    kept.start(Plan.of(config, []), 0)
    thread.join()
    assert said(kept)[1] == 2


def test_a_daemon_that_stays_is_told(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PATIENCE_S", -1.0)
    with (
        alone(config.parent / "state" / "shard-0"),
        pytest.raises(ConfigError, match=r"^node \S+: state: .*another process is at work there$"),
    ):
        Keeper().start(Plan.of(config, []), 0)


@pytest.mark.parametrize(("configured", "ports"), [(9200, {"9200", "9201"}), (0, {"0"})])
def test_shards_of_one_node_share_neither_port_nor_folder_nor_name(
    config: Path, configured: int, ports: set[str]
) -> None:
    config.write_text(config.read_text().replace("port = 9200", f"port = {configured}"))
    told = keeper.load(config)
    both = [keeper._settings(told, told.state / f"shard-{index}", index) for index in range(2)]
    assert {one["QUAKE_METRICS__PORT"] for one in both} == ports
    for name in ("QUAKE_STATE", "QUAKE_DAEMON", "QUAKE_SHARD__INDEX"):
        assert len({one[name] for one in both}) == 2
