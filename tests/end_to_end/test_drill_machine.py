"""What may happen to this machine: a damaged outbox, no file handles, another time, a lost GPU, a model that is swapped."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from daemon_harness import DAEMON, Life, Place, revisions, wait_for
from drill_report import Row, judge, tell
from test_same_alerts import ends

from quake.alerts import Alert
from streamer.composition import model_path
from streamer.config import load
from streamer.server import Record, ReplayServer
from streamer.stages import NS

SECTION = "machine"
LOST_GPU_DAEMON = (sys.executable, str(Path(__file__).with_name("lost_gpu_daemon.py")))
STEPPED_CLOCK_DAEMON = (sys.executable, str(Path(__file__).with_name("stepped_clock_daemon.py")))
PAGE = 4096


def first_alerts(place: Place, life: Life) -> Callable[[], bool]:
    """Whether alerts are on the stream and none waits in the outbox."""
    return lambda: len(place.published()) >= 4 and not sum(life.metric("quake_outbox_depth").values())


def through(
    place: Place,
    records: list[Record],
    during: Callable[[ReplayServer, Life], None],
    command: Sequence[str] = DAEMON,
    *,
    speed: float = 15.0,
    top: str = "",
) -> list[Alert]:
    """One life of the daemon, in the midst of which something happens to it."""
    with (
        ReplayServer(records, speed=speed) as server,
        place.start(place.configure(server.address, top=top), command) as life,
    ):
        wait_for("alerts are on the stream", first_alerts(place, life), 120.0)
        assert not server.finished.is_set()
        during(server, life)
        life.wait_newest(ends(records), 120.0)
        assert life.stop() == 0
    return place.published()


# -- the outbox is damaged --------------------------------------------------------------------------------------------


def to_file(path: Path) -> bytes:
    """All that lies beside the file, written into it; its bytes."""
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    return path.read_bytes()


def overwrite_page(path: Path) -> None:
    """The one with the oldest alert."""
    content = bytearray(to_file(path))
    at = content.index(b'"schema_version"') // PAGE * PAGE
    content[at : at + PAGE] = b"\xa5" * PAGE
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(to_file(path)[: -3 * PAGE])


def replace_by_text(path: Path) -> None:
    to_file(path)
    path.write_bytes(b"no database at all\n" * 1000)


def overwrite_log(path: Path) -> None:
    """From its middle on: what was committed last, and is not yet in the file itself."""
    log = path.with_name(f"{path.name}-wal")
    content = log.read_bytes()
    log.write_bytes(content[: len(content) // 2] + b"\xa5" * (len(content) - len(content) // 2))


def two_lives(place: Place, records: list[Record], damage: Callable[[Path], None], speed: float) -> tuple[str, int]:
    """Killed in the midst of the data, its outbox damaged, started again: the second life's log, and the time of the newest
    record that was out as it was connected."""
    with ReplayServer(records, speed=speed) as server:
        config = place.configure(server.address)
        with place.start(config) as life:
            wait_for("alerts are on the stream", first_alerts(place, life), 120.0)
            life.kill()
        damage(place.outbox)
        with place.start(config) as life:
            wait_for("the daemon is connected", lambda: "connected, 4 stations" in life.text(), 90.0)
            schedule = server.server.schedule
            out_ns = schedule.releases[schedule.done - 1].at_ns
            life.wait_newest(ends(records), 120.0)
            assert life.stop() == 0
            return life.text(), out_ns


@pytest.mark.parametrize(
    ("damage", "fault", "is_told"),
    [
        pytest.param(
            overwrite_page,
            "a page of the outbox, with alerts that were sent, is overwritten",
            True,
            id="page",
            marks=pytest.mark.drill,
        ),
        pytest.param(
            overwrite_log, "SQLite's log beside the outbox is overwritten", False, id="log", marks=pytest.mark.drill
        ),
    ],
)
def test_an_outbox_with_damaged_pages(
    place: Place,
    demo_records: list[Record],
    undisturbed: list[Alert],
    damage: Callable[[Path], None],
    fault: str,
    is_told: bool,
) -> None:
    text, _ = two_lives(place, demo_records, damage, 12.0)
    assert ("was put aside as" in text) == is_told
    assert bool(list(place.outbox.parent.glob("*.damaged-*"))) == is_told
    judge(
        SECTION,
        f"{fault} between two lives",
        "put aside and told where pages do not hold together; what is whole is carried over; nothing lost that was sent, "
        "or that the server still has",
        place.published(),
        undisturbed,
        measured=next((line.split(": ", 3)[-1] for line in text.splitlines() if "put aside" in line), "earlier state"),
        sabotage="salvage.py: carry_over restores no rows" if is_told else "outbox.py: _saved finds no resume points",
    )


@pytest.mark.drill
@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        pytest.param(cut, "the outbox has lost its last three pages", id="cut"),
        pytest.param(replace_by_text, "the outbox is no SQLite at all", id="text"),
    ],
)
def test_an_outbox_that_cannot_be_read_does_not_keep_it_blind(
    place: Place, demo_records: list[Record], undisturbed: list[Alert], damage: Callable[[Path], None], fault: str
) -> None:
    text, out_ns = two_lives(place, demo_records, damage, 4.0)
    assert "was put aside as" in text
    settled_ns = out_ns + 45 * NS
    """A window, and the wait for components, after the first packet that was asked for anew."""
    published = place.published()
    had, wanted = revisions(published), revisions(undisturbed)
    later = revisions([a for a in undisturbed if a.onset > settled_ns])
    tell(
        Row(
            SECTION,
            f"{fault}, between two lives",
            "put aside and told; the daemon goes on where Redis knows its stations to be, and from now elsewhere",
            lost=(wanted - had).total(),
            repeated=sum(count - 1 for count in had.values()),
            measured=f"all {later.total()} revisions of what began later than 45 s after the restart",
            sabotage="daemon.py: Outbox(...) in place of open_outbox(...)",
        )
    )
    assert later
    assert not later - had
    assert max(had.values()) == 1


@pytest.mark.drill
def test_an_outbox_damaged_in_use_ends_the_process(place: Place, demo_records: list[Record]) -> None:
    """Clearly and soon, so that whoever started it starts it again; what is damaged is then put aside."""
    with ReplayServer(demo_records, speed=4.0) as server:
        config = place.configure(server.address)
        with place.start(config) as life:
            wait_for("alerts are on the stream", first_alerts(place, life), 120.0)
            begun_s = time.monotonic()
            for path in (place.outbox, place.outbox.with_name("outbox.sqlite-wal")):
                path.write_bytes(b"\xa5" * path.stat().st_size)
            assert life.process.wait(90.0) == 1, life.text()[-2000:]
            ended_s = time.monotonic() - begun_s
            assert "it is damaged" in life.text()
        with place.start(config) as life:
            life.wait_newest(ends(demo_records), 120.0)
            assert life.get("/healthz")[0] == 200
            assert life.stop() == 0
            assert "was put aside as" in life.text()
    tell(
        Row(
            SECTION,
            "the outbox and its log are overwritten while in use",
            "ends with 1 and says why; the next start puts it aside and goes on",
            measured=f"ended after {ended_s:.0f} s",
            sabotage="outbox.py: is_damage returns False",
        )
    )


# -- the process ------------------------------------------------------------------------------------------------------


@pytest.mark.drill
def test_out_of_file_handles(place: Place, demo_records: list[Record], undisturbed: list[Alert]) -> None:
    flow_s = 0.0

    def during(server: ReplayServer, life: Life) -> None:
        nonlocal flow_s
        hard = resource.prlimit(life.process.pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(life.process.pid, resource.RLIMIT_NOFILE, (3, hard))  # what is open stays so, nothing is added
        server.disconnect()
        wait_for("it says what it lacks", lambda: life.text().count("Too many open files") >= 2, 60.0)
        assert life.process.poll() is None
        before, begun_s = server.counters.packets, time.monotonic()
        resource.prlimit(life.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        wait_for("data flow again", lambda: server.counters.packets > before, 60.0)
        flow_s = time.monotonic() - begun_s

    judge(
        SECTION,
        "out of file handles as the server closes",
        "lives on, says so, and recovers",
        through(place, demo_records, during),
        undisturbed,
        flow_s=flow_s,
        most_flow_s=40.0,
        sabotage="streamer/source/supervisor.py: a fault that is no TransportError ends the thread",
    )


@pytest.mark.drill
def test_clock_set_back_by_an_hour(place: Place, demo_records: list[Record], undisturbed: list[Alert]) -> None:
    """A clock that was ahead is put right: the daemon's own is replaced, the machine's stays."""
    beats: list[int] = []

    def during(server: ReplayServer, life: Life) -> None:
        life.process.send_signal(signal.SIGUSR1)
        wait_for("the clock is set back", lambda: "the clock now says" in life.text(), 30.0)
        wait_for("data go on", server.finished.is_set, 60.0)
        time.sleep(6.0)  # longer than a heartbeat's pause: the next one must have come
        beats.append(life.get("/readyz")[0])

    published = through(place, demo_records, during, STEPPED_CLOCK_DAEMON)
    assert beats == [200]
    judge(
        SECTION,
        "this machine's clock is set back by an hour",
        "nothing waits for the hour to pass: alerts, heartbeat and readiness go on",
        published,
        undisturbed,
        sabotage="pipeline.py: tick_ns is time.time_ns",
    )


# -- the model --------------------------------------------------------------------------------------------------------


def test_a_lost_gpu_is_left_for_the_cpu(place: Place, demo_records: list[Record], undisturbed: list[Alert]) -> None:
    with (
        ReplayServer(demo_records, speed=0.0) as server,
        place.start(place.configure(server.address), LOST_GPU_DAEMON, ("20",)) as life,
    ):
        life.wait_newest(ends(demo_records), 120.0)
        assert life.stop() == 0
        assert "going on on the CPU: CUDA out of memory" in life.text()
    judge(
        SECTION,
        "the GPU is out of memory from its 20th batch on (made: the CPU raises what torch would), on_device_fault = cpu",
        "goes on on the CPU with the same file, and says so",
        place.published(),
        undisturbed,
        sabotage="composition.py: compose without _on_cpu",
    )


@pytest.mark.drill
def test_a_lost_gpu_ends_the_process_where_that_is_wanted(
    place: Place, demo_records: list[Record], undisturbed: list[Alert]
) -> None:
    with ReplayServer(demo_records, speed=0.0) as server:
        config = place.configure(server.address, top='[model]\non_device_fault = "exit"\n')
        with place.start(config, LOST_GPU_DAEMON, ("20",)) as life:
            begun_s = time.monotonic()
            assert life.process.wait(120.0) == 1
            ended_s = time.monotonic() - begun_s
            assert "CUDA out of memory" in life.text()
        with place.start(config) as life:
            life.wait_newest(ends(demo_records), 120.0)
            assert life.stop() == 0
    judge(
        SECTION,
        "the same, on_device_fault = exit, and another process later",
        "ends with 1 and says why; nothing is lost",
        place.published(),
        undisturbed,
        measured=f"ended {ended_s:.0f} s after it was started",
        sabotage="composition.py: _on_cpu does not look at on_device_fault",
    )


@pytest.mark.drill
def test_a_model_file_swapped_under_the_running_daemon(
    place: Place, demo_records: list[Record], undisturbed: list[Alert]
) -> None:
    model = place.folder / "detector.pt"
    shutil.copy(model_path(load(place.configure("seedlink://nowhere:1"))), model)

    def during(server: ReplayServer, life: Life) -> None:
        model.write_bytes(b"another model altogether" * 1000)

    judge(
        SECTION,
        "the model's file is overwritten while in use",
        "the loaded one goes on, with the same scores",
        through(place, demo_records, during, top='[model]\npath = "detector.pt"\n'),
        undisturbed,
        sabotage="worker.py: each batch loads the model's file anew",
    )
