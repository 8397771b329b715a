"""From what is known of stations, alerts and Redis to a table for a terminal. Pure: keeps no clock, writes nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from quake.alerts import Alert

STYLES = {"ok": "green", "waiting": "dim", "late": "yellow", "silent": "red", "disconnected": "red", "unused": "yellow"}
"""Of a station's condition; it is always told in words, too."""
AROUND = 6
"""Lines beside those of stations and alerts: title, facts in three, headings, what is left out."""


@dataclass(frozen=True, slots=True)
class Fact:
    name: str
    told: str
    is_fault: bool = False


@dataclass(frozen=True, slots=True)
class Shown:
    title: str
    stations: Mapping[str, Mapping[str, Any]]
    """By subject, as `streamer.dashboard.stations.described` has them."""
    facts: Sequence[Fact]
    alerts: Sequence[Alert] = ()
    """The newest last."""


def drawn(shown: Shown, now_s: float, width: int, height: int) -> RenderableType:
    """No wider and no higher than the terminal. Stations that are not well come first."""
    alerts = [_line(alert.summary(), "bold") for alert in reversed(shown.alerts)]
    ordered = sorted(shown.stations.items(), key=lambda one: (one[1]["condition"] == "ok", one[0]))
    room = max(1, height - AROUND - len(alerts))
    left_out = len(ordered) - room
    more = [_line(f"and {left_out} more station(s)", "dim")] if left_out > 0 else []
    return Group(_title(shown, now_s), _facts(shown.facts), _stations(ordered[:room], width), *more, *alerts)


def _line(text: str, style: str) -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis", end="\n")


def _title(shown: Shown, now_s: float) -> Text:
    well = sum(one["condition"] == "ok" for one in shown.stations.values())
    clock = datetime.fromtimestamp(now_s, UTC).strftime("%H:%M:%S")
    return _line(f"{clock} UTC  {well} of {len(shown.stations)} stations ok  {shown.title}", "bold")


def _facts(facts: Sequence[Fact]) -> Text:
    parts = [Text(f"{fact.name} {fact.told}", "bold red" if fact.is_fault else "") for fact in facts]
    return Text(", ").join(parts)


def _stations(ordered: Sequence[tuple[str, Mapping[str, Any]]], width: int) -> Table:
    columns = [column for column in COLUMNS if width >= column.width]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="underline")
    for column in columns:
        table.add_column(column.heading, no_wrap=True, justify=column.justify)
    for subject, told in ordered:
        table.add_row(*(column.cell(subject, told) for column in columns), style=STYLES.get(told["condition"], ""))
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


@dataclass(frozen=True, slots=True)
class Column:
    heading: str
    justify: Literal["left", "right"]
    width: int
    """Of the terminal, from which on it is shown."""
    cell: Callable[[str, Mapping[str, Any]], str]


COLUMNS = (
    Column("station", "left", 0, lambda subject, _: subject.removeprefix("FDSN:")),
    Column("state", "left", 0, lambda _, told: told["condition"]),
    Column("latency s", "right", 0, lambda _, told: _number(told["latency_s"], ".1f")),
    Column("probability", "right", 60, lambda _, told: _number(told["probability"], ".3f")),
    Column("left out", "left", 76, lambda _, told: " ".join(told["reasons"])),
)
