"""Real programs at a real terminal: the table is there, Ctrl-C leaves the terminal as it was."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from daemon_harness import Place
from dashboard_server import beat, publish, station
from made_alerts import alert
from made_network import network
from terminal import LIMIT_S, Terminal
from valkey_server import Valkey

from quake.alerts import Keys
from streamer.server import ReplayServer

DAEMON = (sys.executable, str(Path(__file__).with_name("terminal_daemon.py")))
WATCH = (sys.executable, "-m", "streamer", "watch", "--heartbeat-s", "0")
SUBJECT = "FDSN:XX_ABC__H_H"


def test_run_shows_a_table_and_leaves_the_terminal_clean(place: Place) -> None:
    top = "characteriser.enabled = false\n"
    records = network(4, 1_600_000_000_000_000_000, seconds=60, events_s=(30,))
    with ReplayServer(records, speed=0) as server, Terminal() as terminal:
        process = terminal.start([*DAEMON, str(place.configure(server.address, top=top))])
        terminal.wait(lambda text: "4 of 4 stations ok" in text and "XX_S00__H_H" in text)
        terminal.wait(lambda text: "Redis ok" in text)
        assert "connected, 4 stations" in terminal.text, "the log goes above"
        terminal.press("\x03")
        assert process.wait(LIMIT_S) == 0
        terminal.wait(lambda text: "stations ok" not in text)
        assert terminal.has_cursor
        assert "connected, 4 stations" in terminal.text
        assert terminal.text.splitlines()[-1].endswith("SIGINT")


def test_watch_prints_alerts_above_its_table(valkey: Valkey) -> None:
    keys = Keys(valkey.prefix)
    command = [*WATCH, "--redis", valkey.url, "--prefix", valkey.prefix]
    with valkey.client() as client, Terminal() as terminal:
        process = terminal.start(command)
        terminal.wait(lambda text: beat(client, keys, {SUBJECT: station()}) or "1 of 1 stations ok" in text)
        publish(client, keys, alert("a"))
        terminal.wait(lambda text: text.startswith("event     open") and "stations ok" in text)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
        terminal.wait(lambda text: "stations ok" not in text)
        assert terminal.text == alert("a").summary()
        assert terminal.has_cursor
