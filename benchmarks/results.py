"""Lines of the table in docs/explanation/performance.md: each says what, the goal, and the figure. Pure, but for files.

A benchmark prints its lines, and keeps them as JSON where `benchmarks.performance` asks for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Line:
    what: str
    figure: str
    goal: str = ""
    reached: bool | None = None
    """None: no goal."""

    @property
    def said(self) -> str:
        return {True: "reached", False: "**missed**", None: ""}[self.reached]


@dataclass(frozen=True, slots=True)
class Part:
    """What one benchmark found."""

    title: str
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = field(default=())
    """Markdown under the table: profiles, and what could not be measured."""
    values: Mapping[str, float] = field(default_factory=dict)
    """For benchmarks that build on this one."""

    def markdown(self) -> str:
        rows = [f"| {one.what} | {one.goal} | {one.figure} | {one.said} |" for one in self.lines]
        table = ["| what | goal | figure | |", "|---|---|---|---|", *rows] if rows else []
        return "\n\n".join(filter(None, [f"### {self.title}", "\n".join(table), *self.notes]))

    def write(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1))

    def tell(self, path: Path | None) -> None:
        """Print it, and keep it where that is wanted."""
        print(self.markdown())
        if path:
            self.write(path)

    @staticmethod
    def read(path: Path) -> Part:
        content = json.loads(path.read_text())
        return Part(
            content["title"], tuple(Line(**one) for one in content["lines"]), tuple(content["notes"]), content["values"]
        )


def number(value: float) -> str:
    """Three digits that matter; whole numbers whole."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def at_least(what: str, value: float, goal: float, unit: str = "") -> Line:
    return Line(what, _with(number(value), unit), f"at least {_with(number(goal), unit)}", value >= goal)


def at_most(what: str, value: float, goal: float, unit: str = "", detail: str = "") -> Line:
    figure = _with(number(value), unit) + (f" ({detail})" if detail else "")
    return Line(what, figure, f"at most {_with(number(goal), unit)}", value <= goal)


def plain(what: str, value: float, unit: str = "") -> Line:
    return Line(what, _with(number(value), unit))


def _with(figure: str, unit: str) -> str:
    return f"{figure} {unit}".rstrip()


def inserted(page: str, name: str, content: str) -> str:
    """The page with what stands between ``<!-- NAME -->`` and ``<!-- /NAME -->`` made anew. ValueError where it has no such
    place."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = page.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"the page has no {begin} ... {end}")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def told(parts: Iterable[Part]) -> Sequence[str]:
    """Which goals were missed."""
    return [f"{part.title}: {line.what}" for part in parts for line in part.lines if line.reached is False]
