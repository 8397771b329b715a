"""What a node of a cluster refuses, and what it sends back. No cluster is needed for it."""

from __future__ import annotations

import logging
import pickle
import socket
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
from made_archive import MIDNIGHT_NS, quarter_hour, write_sds
from made_scorer import SERVERS, loud_scorer

from streamer import scan_pool
from streamer.archive import END_NS, Part, find
from streamer.cli import main
from streamer.config import Config, ConfigError, resolve
from streamer.objects import Object, StoreError, cached_index
from streamer.scan_piece import Scored, newest
from streamer.scan_plan import Piece, plan
from streamer.scan_pool import Job
from streamer.scan_remote import RemoteScorer, require_seen, seen, unpacked, with_whole_paths, without_secrets
from streamer.trigger import Thresholds

NOW_NS = 1_800_000_000_000_000_000
LIMITS = Thresholds(on=0.9, off=0.5, in_a_row=2, release=2, dead_k=15, longest_k=60)


@pytest.fixture
def _as_a_process_elsewhere() -> Iterator[None]:
    """The root's handlers as they were."""
    before = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = before


def job_of(config: Config) -> Job:
    return Job(config, NOW_NS, 0, END_NS)


@pytest.mark.usefixtures("_as_a_process_elsewhere")
def test_a_node_gives_what_this_machine_gives_and_says_it_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config, scorer = resolve(SERVERS, Path("x")), loud_scorer(40, 3.0, LIMITS)
    monkeypatch.setattr(scan_pool, "load_scorer", lambda config: scorer)
    monkeypatch.chdir(tmp_path)
    write_sds(Path("sds"), quarter_hour())
    pieces = plan(find([Path("sds")])[0], scorer.grid, 2)
    piece = next(piece for piece in pieces if scorer.grid.start_ns(piece.last) > MIDNIGHT_NS)
    wanted = job_of(config).scorer().score(piece)
    whole = with_whole_paths(piece)
    remote = RemoteScorer()
    remote.load(job_of(config), version("quake"), "INFO")
    monkeypatch.chdir("/")
    cached_index.cache_clear()
    logging.getLogger("streamer.made").info("of %d", 3)
    logging.getLogger("streamer.made").debug("not of interest")
    content = remote.score(whole, seen(whole))
    with caplog.at_level("INFO"):
        caplog.clear()
        logging.getLogger().addHandler(caplog.handler)
        found = unpacked(content)
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [("streamer.made", "INFO", "of 3")]
    assert wanted is not None
    assert wanted.windows
    assert told(found) == told(wanted)
    with pytest.raises(StoreError, match="does not see /nowhere/file"):
        remote.score(whole, {Path("/nowhere/file"): 512})


def told(scored: Scored) -> tuple[object, ...]:
    items = [(item.subject, newest(item), getattr(item, "probability", None)) for item in scored.items]
    return scored.first, scored.last, scored.windows, scored.faults, scored.unused, items


def test_no_secret_leaves_this_machine() -> None:
    content = {
        "source": [{"servers": ["seedlinks://me:hidden1@x"], "select": ["*.*"]}],
        "redis": {"url": "redis://:hidden2@x/0"},
        "metrics": {"token": "hidden3 hidden3 hidden3"},
        "windows": {"max_wait_s": 12.0},
    }
    config = resolve(content, Path("x"))
    assert b"hidden" in pickle.dumps(config)
    sent = without_secrets(config)
    assert b"hidden" not in pickle.dumps(sent)
    assert pickle.loads(pickle.dumps(sent)).windows.max_wait_s == 12.0


@pytest.mark.parametrize(
    ("update", "quake", "wanted"),
    [
        ({"sha256": "0" * 64}, version("quake"), r"model: .*detector.*: sha256 is [0-9a-f]{64}, pinned is 0{64}"),
        ({"path": Path("/nowhere/model.pt")}, version("quake"), r"model: .*/nowhere/model.pt"),
        ({}, "7.0.0", r"has quake .*, and 7\.0\.0 scans"),
    ],
)
def test_a_node_refuses_another_model_and_another_quake(update: dict[str, object], quake: str, wanted: str) -> None:
    config = resolve(SERVERS, Path("x"))
    config = config.model_copy(update={"model": config.model.model_copy(update=update)})
    with pytest.raises(ConfigError, match=rf"^node {socket.gethostname()}:? {wanted}") as told:
        RemoteScorer().load(job_of(config), quake, "INFO")
    assert "\n" not in str(told.value)
    assert logging.root.manager.disable == logging.NOTSET


def test_a_file_that_a_node_alone_does_not_see_stops_it(tmp_path: Path) -> None:
    """One that nobody sees is a fault of the archive, as it is on one machine; one that has grown is none."""
    there, gone, grown = (tmp_path / name for name in ("there", "gone", "grown"))
    for path in (there, grown):
        path.write_bytes(bytes(512))
    objects = Object("s3://bucket", "key", 512)
    parts = tuple(Part(path, 0, 1, 512, frozenset({("s", "Z")})) for path in (there, gone, grown, objects))
    here = seen(Piece(0, 0, parts, {}, {}, frozenset()))
    assert here == {there: 512, grown: 512}
    grown.write_bytes(bytes(1024))
    require_seen(here)
    there.write_bytes(bytes(256))
    with pytest.raises(StoreError, match=rf"node \S+ does not see {there} as .*: 256 bytes of 512"):
        require_seen(here)
    there.unlink()
    with pytest.raises(StoreError, match=rf"node \S+ does not see {there} as .*: No such file or directory"):
        require_seen(here)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["--engine", "ray"], "--engine ray: ray is not installed: pip install 'quake[ray]'"),
        (["--ray-address", "head:6379"], "--ray-address: wants --engine ray"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(
    arguments: list[str], wanted: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["scan", "nowhere", *arguments]) == 2
    assert capsys.readouterr().err == f"quake-streamer: {wanted}\n"
