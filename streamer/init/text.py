"""The text of a new configuration: what is needed, and in comments what is likely to be changed. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence

from streamer.init.choosing import Sensor

EVENT = 3
"""Stations that make an event by default."""
TEMPLATE = """\
# Written by `quake-streamer init`. Every key: docs/reference/configuration.md; those in force: quake-streamer check
{top}
[[source]]
servers = {servers}  # the first, then its fall-backs
select = [  # NET.STA.LOC.CHA, with * and ?
{select}
]
{coincidence}
[redis]
url = "redis://127.0.0.1:6379/0"  # QUAKE_REDIS_URL stands above it, and is the place for a password
{places}"""
PLACES = """
# Where stations stand, so that onsets must fit travel times; or from StationXML, at the top: inventory = ["stations.xml"]
# [places."{name}"]
# latitude = 0.0
# longitude = 0.0
"""
TWO = """
[coincidence]
min_stations = 2  # that make an event; three are wrong much less often
"""
MORE = """
# [coincidence]
# min_stations = 3  # that make an event
"""


def configuration(servers: Sequence[str], sensors: Sequence[Sensor], inventory: str | None) -> str:
    """TOML. ``inventory``: StationXML, by its path from the configuration's folder."""
    names = {sensor.name: sensor for sensor in sensors}
    top = []
    if len(names) < 2:
        top.append("coincidence = false  # one station makes no event; of more, take this line out")
    if inventory is not None:
        top.append(f"inventory = [{_quoted(inventory)}]  # coordinates, orientation and gain")
    return TEMPLATE.format(
        top="".join(f"{line}\n" for line in top),
        servers=f"[{', '.join(map(_quoted, servers))}]",
        select="\n".join(f"  {_quoted(sensor.pattern)},{_components(sensor)}" for sensor in sensors),
        coincidence="" if len(names) < 2 else TWO if len(names) < EVENT else MORE,
        places=PLACES.format(name=next(iter(names))) if inventory is None else "",
    )


def _components(sensor: Sensor) -> str:
    return f"  # {' '.join(sensor.components)}" if len(sensor.components) > 1 else ""


def _quoted(text: str) -> str:
    """TOML's basic string: JSON's, but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
