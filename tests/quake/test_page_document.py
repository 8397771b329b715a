"""What the page's document says of keys and options is what there is."""

from __future__ import annotations

import re
from pathlib import Path

from quake.alerts import Keys
from streamer.cli import parser

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "page.md").read_text()


def test_every_key_is_told() -> None:
    keys = Keys()
    named = set(re.findall(r"^\| `(\S+)` \|", TEXT, re.M))
    assert named == {
        keys.live_state("DAEMON"),
        keys.live_data("STATION"),
        keys.viewer("STATION"),
        keys.picture("ALERT"),
        keys.hour("STATION", 0).replace(":0", ":HOUR"),
        keys.marks,
        keys.mutes,
    }


def test_every_command_is_taken() -> None:
    commands = re.findall(r"^quake-streamer (.*?)(?:\s+#.*)?$", TEXT, re.M)
    assert len(commands) == 3
    for command in commands:
        parser().parse_args(command.split())
