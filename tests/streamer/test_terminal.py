"""The table: what is drawn, from what, and that a terminal which takes nothing holds nobody up."""

from __future__ import annotations

import io
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_server import beat, station
from made_alerts import MODEL, alert
from made_packets import SUBJECT, noise, packet, score
from rich.console import Console
from terminal import Terminal
from valkey_server import OwnValkey, Valkey

from quake.alerts import Keys, Mode
from quake.connecting import connect
from streamer.config import resolve
from streamer.dashboard.stations import described
from streamer.grid import Grid
from streamer.stages import Refused, Unscored, Unused
from streamer.terminal import is_fit, screen, watching
from streamer.terminal.screen import Screen
from streamer.terminal.seen import Seen
from streamer.terminal.table import Fact, Shown, drawn
from streamer.terminal.told import read

NOW_S = 1_700_000_000.0


def shown(count: int = 3, **odd: Any) -> Shown:
    """Stations that are well, but for the last."""
    states = {
        f"FDSN:XX_S{n:03d}_00_H_H": {**station(), "newest_s": NOW_S - 1, "scored_s": NOW_S - 2} for n in range(count)
    }
    states[f"FDSN:XX_S{count - 1:03d}_00_H_H"].update(odd)
    state = {"mode": "live", "written_s": NOW_S, "window_s": 20.8, "stations": states}
    facts = [Fact("Redis", "not reachable: timeout", is_fault=True), Fact("packets", "12345")]
    return Shown("quake 1.0.0, live", described([state], {}, NOW_S), facts, (alert("a"), alert("b")))


def text(what: Shown, width: int, height: int = 40, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, height=height, **options)
    console.print(drawn(what, NOW_S, width, height))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().rstrip("\n")


# -- what is drawn -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("count", [0, 3, 200])
def test_it_fits_every_terminal(width: int, count: int) -> None:
    lines = text(shown(count) if count else Shown("starting", {}, []), width, 24).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 24


def test_what_is_not_well_comes_first_and_says_why() -> None:
    told = text(shown(200, newest_s=NOW_S - 100, unused={"gap": (12, 3.0)}), 120, 24)
    heading, first, *_, more, newest, older = told.splitlines()[2:]
    assert heading.split() == ["station", "state", "latency", "s", "probability", "left", "out"]
    assert first.split() == ["XX_S199_00_H_H", "late", "100.0", "0.100", "gap"]
    assert more == "and 184 more station(s)"
    assert newest.startswith("event     open")
    assert older != newest
    assert "199 of 200 stations ok" in told
    assert "Redis not reachable: timeout, packets 12345" in told


def test_a_narrow_terminal_keeps_what_matters() -> None:
    told = text(shown(newest_s=NOW_S - 100), 40)
    assert "XX_S002_00_H_H  late" in told
    assert "100.0" in told
    assert "probability" not in told


def test_colours_are_left_out_where_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "\x1b[31m" in text(shown(connected=False), 80, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in text(shown(connected=False), 80, force_terminal=True, color_system="standard")


# -- what it is drawn from ---------------------------------------------------------------------------------------------


def test_the_daemons_hooks_tell() -> None:
    clock = [0.0]
    seen = Seen(Mode.LIVE, lambda: clock[0])
    assert text(seen.shown(NOW_S), 120).startswith("22:13:20 UTC  0 of 0 stations ok  starting")
    seen.began(MODEL, Grid(100, 400, 100), lambda: {"FDSN:XX_NEW__H_H": None})
    seen.source("connected", "seedlink://a:1", "")
    seen.packet(packet("Z", 0, noise(100)))
    seen.state(SUBJECT, round((NOW_S - 1.5) * 1e9), round((NOW_S - 2) * 1e9), 1.0)
    seen.scored([score(round(NOW_S) - 4, 0.25)])
    seen.refused(Refused(Unused.CORRUPT, "", None, 512))
    seen.samples_unused(f"{SUBJECT}_Z", Unused.GAP, 30)
    seen.windows_unused(Unscored(SUBJECT, 1, 4, Unused.FLAT))
    seen.backlog(7, None)
    seen.redis_reachable(0)
    for n in range(6):
        seen.committed([alert(str(n), revision=0), alert(str(n), revision=1)])
    told = text(seen.shown(NOW_S), 160)
    assert "1 of 2 stations ok  quake 1.0.0, live" in told
    assert "XX_NEW__H_H  waiting" in told
    assert "XX_ABC__H_H  ok             1.5        0.250  flat gap" in told.replace("gap flat", "flat gap")
    assert "Redis ok, outbox 7 to send" in told
    assert "packets 1, records left out: corrupt 1, samples left out: gap 30, windows left out: flat 4" in told
    assert told.count("event     update r1") == 4
    clock[0] = 100.0
    seen.source("lost", "seedlink://a:1", "silent")
    seen.overload(True)
    told = text(seen.shown(NOW_S), 160)
    assert "servers 0 connected, seedlink://a:1 lost: silent, Redis silent for 100 s" in told
    assert "overload: windows are dropped" in told
    seen.publish_failed("timeout")
    assert "Redis not reachable: timeout" in text(seen.shown(NOW_S), 160)
    seen.began(MODEL, Grid(100, 400, 100), dict)
    assert "0 of 0 stations ok" in text(seen.shown(NOW_S), 160)


def test_what_daemons_write_on_redis_tells(valkey: Valkey) -> None:
    keys = Keys(valkey.prefix)
    with connect(valkey.url, 1.0) as client:
        now_ns = time.time_ns()
        assert "daemons none tells of its stations" in text(read(client, keys, now_ns), 120)
        beat(client, keys, {SUBJECT: station(), "FDSN:XX_DEF__H_H": station(connected=False)})
        told = text(read(client, keys, now_ns), 120)
    assert "1 of 2 stations ok  quake 1.0.0, live" in told
    assert "Redis ok, here 1 server(s), 0 to send, 0.4 s behind" in told
    assert "XX_DEF__H_H  disconnected" in told


def test_a_redis_that_is_away_is_told(own_valkey: OwnValkey) -> None:
    with connect(own_valkey.url, 1.0) as client:
        own_valkey.stop()
        told = text(read(client, Keys(), time.time_ns()), 160)
    assert "0 of 0 stations ok" in told
    assert "Redis not reachable: " in told


# -- the terminal itself -----------------------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(screen, "DRAW_S", 0.0)
    with Terminal(columns=80, lines=24) as made:
        yield made


def test_where_a_table_can_stand(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    with open(terminal.follower, "w", closefd=False) as stream:
        assert is_fit(stream)  # it controls no jobs of ours
        for name in ("dumb", ""):
            monkeypatch.setenv("TERM", name)
            assert not is_fit(stream)
    assert not is_fit(io.StringIO())


def test_nothing_stands_where_it_is_not_wanted(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve({"source": [{"servers": ["seedlink://a"], "select": ["*.*"]}]}, Path("quake.toml"))
    with open(terminal.follower, "w", closefd=False) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with watching(config, is_wanted=True) as hooks:
            assert len(hooks) == 1
            terminal.wait(lambda text: "0 of 0 stations ok  starting" in text)
        with watching(config, is_wanted=False) as hooks:
            assert hooks == ()
        monkeypatch.setenv("TERM", "dumb")
        with watching(config, is_wanted=True) as hooks:
            assert hooks == ()
    monkeypatch.undo()
    with watching(config, is_wanted=True) as hooks:
        assert hooks == (), "pytest's standard error is a file"


def test_lines_go_above_the_table_and_alone_remain(terminal: Terminal) -> None:
    with open(terminal.follower, "w", closefd=False) as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
        logging.getLogger().addHandler(handler)
        with Screen(stream, lambda width, height: "a table"):
            terminal.wait(lambda text: text == "a table")
            assert not terminal.has_cursor
            for n in range(3):
                logging.warning("[bold]%d[/bold] %s", n, "x" * 90)
            terminal.wait(lambda text: text.endswith("a table") and "2[/bold]" in text)
        logging.warning("after")
    wanted = "".join(f"WARNING [bold]{n}[/bold] {'x' * 90}" for n in range(3)) + "WARNING after"
    terminal.wait(lambda text: text.replace("\n", "") == wanted)
    assert terminal.has_cursor


def test_a_table_that_fails_is_given_up_and_no_line_is_lost(terminal: Terminal) -> None:
    def fail(width: int, height: int) -> str:
        raise ValueError("no table")

    with open(terminal.follower, "w", closefd=False) as stream:
        logging.getLogger().addHandler(logging.StreamHandler(stream))
        with Screen(stream, fail) as standing:
            terminal.wait(lambda text: "ValueError: no table" in text)
            logging.warning("still told")
            standing.say("an alert")
            terminal.wait(lambda text: text.endswith("still told\nan alert"))


def test_a_process_that_is_about_to_end_leaves_everything_written(terminal: Terminal) -> None:
    with open(terminal.follower, "w", closefd=False) as stream:
        logging.getLogger().addHandler(logging.StreamHandler(stream))
        with Screen(stream, lambda width, height: "a table"):
            terminal.wait(lambda text: text == "a table")
            logging.critical("it hangs: ending the process")
            terminal.wait(lambda text: text == "it hangs: ending the process")
            assert terminal.has_cursor


def test_a_terminal_that_takes_nothing_holds_nobody_up(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(screen, "STOP_S", 0.1)
    terminal.read_on.clear()
    with open(terminal.follower, "w", closefd=False) as stream:
        logging.getLogger().addHandler(logging.StreamHandler(stream))
        begun_s = time.monotonic()
        with Screen(stream, lambda width, height: "a table") as standing:
            for n in range(40):  # far more than a terminal's buffer
                logging.warning("%d %s", n, "y" * 1000)
                time.sleep(0.001)
        assert time.monotonic() - begun_s < 2
        terminal.read_on.set()
        standing.close()
        standing._thread.join(10)
    assert not standing._thread.is_alive()
    terminal.wait(lambda text: "39 yyy" in text)
