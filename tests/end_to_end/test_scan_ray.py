"""Scans on a Ray cluster give the alerts of one machine, whatever ends meanwhile. Its nodes are processes of this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from daemon_harness import Place, revisions, wait_for
from made_archive import quarter_hour, without_clocks, write_sds
from made_jobs import EndingJob, HaltingJob, LoudJob, OnGpuJob, RefusingJob, StorelessJob, scorer_here
from made_scorer import SERVERS
from ray_nodes import NODE, lose, nodes, started

import streamer.scan_plan
from quake.alerts import Alert, Mode
from quake.times import NS
from streamer import scan_work, scanning
from streamer.config import Config, ConfigError, resolve
from streamer.scan_pool import Job
from streamer.scanning import Scanned
from streamer.server import Record

pytestmark = [pytest.mark.drill, pytest.mark.timeout(900)]

Scan = Callable[[type[Job]], Scanned]


@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def cluster(patch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Of two nodes that work, one has a GPU."""
    with nodes(patch, {"num_gpus": 1}, {"num_gpus": 0}) as made:
        yield made


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sds(tmp_path_factory.mktemp("archive"), quarter_hour())


@pytest.fixture(scope="module")
def made_config(patch: pytest.MonkeyPatch) -> Config:
    """Pieces of five minutes: sixteen."""
    patch.setattr(streamer.scan_plan, "PIECE_NS", 300 * NS)
    patch.setattr(scanning, "load_scorer", scorer_here)
    rules = {"min_stations": 3, "window_s": 5.0, "hold_s": 30.0}
    content = {**SERVERS, "coincidence": rules, "mode": Mode.SCAN, "model": {"on_device_fault": "exit"}}
    return resolve({**content, "characteriser": {"enabled": False}}, Path("x"))


@pytest.fixture(scope="module")
def expected(archive: Path, made_config: Config) -> Scanned:
    """By this process alone."""
    found = scanning.run(made_config, [archive], processes=1)
    assert len(found.alerts) > 10
    assert not found.faults
    assert not found.stopped
    return found


@pytest.fixture
def config(made_config: Config, tmp_path: Path) -> Config:
    """``state``: a folder for the marks of jobs."""
    return made_config.model_copy(update={"state": tmp_path})


@pytest.fixture
def scan(cluster: Any, archive: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> Scan:
    def on_the_cluster(job: type[Job]) -> Scanned:
        monkeypatch.setattr(scan_work, "Job", job)
        return scanning.run(config, [archive], engine=scanning.on_ray(cluster.address, 2))

    return on_the_cluster


def require_same(found: Scanned, expected: Scanned) -> None:
    """Ids, revisions, probabilities and all else, and whether it came to the end."""
    assert without_clocks(found.alerts) == without_clocks(expected.alerts)
    assert (found.faults, found.stopped) == (expected.faults, expected.stopped)


def test_several_nodes_give_what_one_machine_gives(scan: Scan, expected: Scanned) -> None:
    require_same(scan(LoudJob), expected)


def once_it_halts(folder: Path, do: Callable[[int], None]) -> threading.Thread:
    def wait_and_do() -> None:
        wait_for("a process halts", (folder / "pid").exists, 120.0)
        do(int((folder / "pid").read_text()))

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    return thread


def test_a_process_that_is_killed_changes_nothing(
    scan: Scan, expected: Scanned, config: Config, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Nor is it told on standard output, where alerts are."""
    thread = once_it_halts(config.state, lambda pid: os.kill(pid, signal.SIGKILL))
    found = scan(HaltingJob)
    thread.join()
    require_same(found, expected)
    assert capfd.readouterr().out == ""
    (told,) = (record for record in caplog.records if record.name == "streamer.scan_ray")
    assert "a process of Ray's is lost; what it had goes to others: " in told.getMessage()
    assert "\n" not in told.getMessage()


def test_a_node_that_is_lost_changes_nothing(cluster: Any, scan: Scan, expected: Scanned, config: Config) -> None:
    """The node that is left has room for one process: what the lost one had goes to it."""

    thread = once_it_halts(config.state, lambda pid: lose(cluster, pid))
    try:
        found = scan(HaltingJob)
    finally:
        thread.join()
        started(lambda: cluster.add_node(**NODE, num_gpus=1))
    require_same(found, expected)


def test_what_scoring_raises_is_told_as_by_processes_of_this_machine(
    scan: Scan, archive: Path, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in (scan, lambda job: here(job, archive, config, monkeypatch)):
        with pytest.raises(ValueError, match=r"^a made fault$"):
            engine(RefusingJob)
        found = engine(StorelessJob)
        assert (found.faults, found.stopped, found.alerts) == (("s3://made: does not answer",), True, ())


def here(job: type[Job], archive: Path, config: Config, monkeypatch: pytest.MonkeyPatch) -> Scanned:
    monkeypatch.setattr(scan_work, "Job", job)
    return scanning.run(config, [archive], processes=2)


def test_a_piece_that_ends_every_process_ends_the_scan(scan: Scan) -> None:
    found = scan(EndingJob)
    assert found.stopped
    (fault,) = found.faults
    assert "4 processes in a row ended while they had one piece" in fault
    assert "\n" not in fault


def test_where_the_model_runs_on_a_gpu_each_process_has_one(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the two nodes one has one; the other takes no part."""
    monkeypatch.setattr("made_scorer.Loud.device", "cuda")
    found = scan(OnGpuJob)
    assert found.alerts
    assert not found.stopped


def test_as_many_processes_as_the_scarcest_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from streamer.scan_ray import _room

    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 9.0, "GPU": 2.0})
    assert _room({"num_cpus": 2, "num_gpus": 1}) == 2
    assert _room({"num_cpus": 2, "num_gpus": 0}) == 4
    assert _room({"num_cpus": 10, "num_gpus": 0}) == 1


def test_another_model_on_a_node_is_refused_in_a_line(scan: Scan) -> None:
    """The real one lies there, and this scan's has another digest."""
    with pytest.raises(ConfigError, match=r"^node \S+: model: \S+: sha256 is \w+, pinned is 0{64}$"):
        scan(Job)


class NowhereElseJob(LoudJob):
    """Of a module that the nodes have not."""


def test_a_node_without_quake_is_told_in_a_line(scan: Scan) -> None:
    with pytest.raises(ConfigError, match=r"a node of Ray's has not this quake: .*No module named 'test_scan_ray'$"):
        scan(NowhereElseJob)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:10001", "auto", "127.0.0.1:123456", ":"])
def test_an_address_without_a_cluster_is_told_at_once(address: str, archive: Path, config: Config) -> None:
    with pytest.raises(ConfigError, match=rf"^--ray-address: {address}: "):
        scanning.run(config, [archive], engine=scanning.on_ray(address, 2))


def test_a_file_that_the_nodes_do_not_see_stops_the_scan(scan: Scan, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are on this machine: it is said to see one more than there are."""
    from streamer import scan_ray

    monkeypatch.setattr(scan_ray, "seen", lambda piece: {Path("/nowhere/file"): 512})
    found = scan(LoudJob)
    assert found.stopped
    (fault,) = found.faults
    assert fault.endswith("does not see /nowhere/file as the machine that scans does: No such file or directory")


def test_the_program_on_a_cluster_of_its_own(tmp_path: Path, demo_records: list[Record], scanned: list[Alert]) -> None:
    """The shipped detector, a relative path; on the terminal nothing of Ray's, which leaves nothing on the disk either."""
    write_sds(tmp_path / "sds", demo_records)
    config = Place(tmp_path, "redis://nowhere").configure("seedlink://nowhere:1")
    options = ["--config", config, "--engine", "ray", "--processes", 2, "--json", "--log-level", "warning"]
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_TMPDIR")}
    home = tmp_path / "home"
    home.mkdir()
    with TemporaryDirectory(dir="/tmp") as temporary:
        done = subprocess.run(
            [sys.executable, "-m", "streamer", "scan", "sds", *map(str, options)],
            cwd=tmp_path,
            env={**environment, "HOME": str(home), "TMPDIR": temporary, "RAY_ADDRESS": "127.0.0.1:1"},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert list(Path(temporary).iterdir()) == []
    assert list(home.iterdir()) == []
    assert revisions([Alert.model_validate_json(line) for line in done.stdout.splitlines()]) == revisions(scanned)
