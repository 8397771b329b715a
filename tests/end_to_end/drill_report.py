"""What drills measured: a row for each fault, kept as JSON lines, and the table of docs/explanation/reliability.md made of them.

    python tests/end_to_end/drill_report.py     writes the table anew from build/drills.jsonl

A drill calls `judge` with what lies on the streams and what an undisturbed run gives. It fails where an alert was lost
or came twice, but writes its row first: a table without its failures would lie.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from daemon_harness import revisions

from quake.alerts import Alert

ROOT = Path(__file__).resolve().parents[2]
ROWS = Path(os.environ.get("QUAKE_DRILLS", ROOT / "build" / "drills.jsonl"))
DOCUMENT = ROOT / "docs" / "explanation" / "reliability.md"
BEGIN, END = "<!-- drills: begin -->", "<!-- drills: end -->"
SECTIONS = ("server", "data", "redis", "machine", "load", "time", "strangers", "reload", "storm", "shards")


@dataclass(frozen=True, slots=True)
class Row:
    """One fault, what is promised under it, and what was measured."""

    section: str
    """One of SECTIONS."""
    fault: str
    promised: str
    lost: int | None = None
    """Alert revisions that the undisturbed run has and this one has not; None where no alerts are compared."""
    repeated: int | None = None
    """Alert revisions that came more than once, or that the undisturbed run has not."""
    flow_s: float | None = None
    """Seconds from the fault's end until data, or alerts, flowed again; None where nothing stopped."""
    measured: str = ""
    """Anything else that was measured."""
    sabotage: str = ""
    """The one line that was broken to see this drill fail; empty: nobody has seen it fail yet."""


def tell(row: Row) -> None:
    """Keep the row; a later one of the same fault takes its place."""
    assert row.section in SECTIONS
    ROWS.parent.mkdir(parents=True, exist_ok=True)
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(row)) + "\n")


def judge(
    section: str,
    fault: str,
    promised: str,
    published: Sequence[Alert],
    undisturbed: Sequence[Alert],
    *,
    flow_s: float | None = None,
    most_flow_s: float | None = None,
    measured: str = "",
    sabotage: str,
) -> None:
    """Compare ids, revisions and states with those of the undisturbed run; the row is told whatever comes out."""
    had, wanted = revisions(published), revisions(undisturbed)
    lost, repeated = (wanted - had).total(), (had - wanted).total()
    tell(Row(section, fault, promised, lost, repeated, flow_s, measured, sabotage))
    assert wanted, "an undisturbed run without alerts proves nothing"
    assert not lost, f"lost: {wanted - had}"
    assert not repeated, f"came twice, or never should have: {had - wanted}"
    if most_flow_s is not None:
        assert flow_s is not None
        assert flow_s <= most_flow_s, f"data flowed again after {flow_s:.1f} s"


def rows(path: Path = ROWS) -> list[Row]:
    """By section, the newest of each fault."""
    told = [Row(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    newest = {(row.section, row.fault): row for row in told}
    return sorted(newest.values(), key=lambda row: (SECTIONS.index(row.section), row.fault))


def table(found: Sequence[Row]) -> str:
    """Markdown."""

    def cells(row: Row) -> tuple[str, ...]:
        numbers = ("-" if n is None else str(n) for n in (row.lost, row.repeated))
        flow = "-" if row.flow_s is None else f"{row.flow_s:.1f}"
        return (row.section, row.fault, row.promised, *numbers, flow, row.measured, row.sabotage or "not seen yet")

    head = ("", "fault", "promised", "lost", "repeated", "s until flow", "measured", "seen to fail when")
    lines = [head, ("---",) * len(head), *map(cells, found)]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> int:
    text = DOCUMENT.read_text(encoding="utf-8")
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{table(rows())}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
