"""Reads docs/reference/networks.md: its tables, its examples, and the files that it names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from quake.models import Backbone, EfficientNetBackbone

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "reference" / "networks.md"

Row = dict[str, str]


@dataclass(frozen=True)
class Table:
    header: list[str]
    rows: list[list[str]]

    def dictionaries(self) -> list[Row]:
        """A title that stands twice is the document's beside ours; the later one gets a quotation mark for each before."""
        titles = [title + "'" * self.header[:place].count(title) for place, title in enumerate(self.header)]
        return [dict(zip(titles, row, strict=True)) for row in self.rows]


@cache
def text() -> str:
    return DOCUMENT.read_text(encoding="utf-8")


def says(phrase: str) -> bool:
    return phrase in " ".join(text().split())


@cache
def tables() -> list[Table]:
    made = []
    for found in re.findall(r"(?:^\|.*\|\n)+", text(), re.M):
        header, rule, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()]
        assert set("".join(rule)) <= set("-: ")
        made.append(Table(header, rows))
    return made


def table(*titles: str) -> list[Row]:
    """The rows of the one table whose header begins with these titles."""
    found = [one for one in tables() if one.header[: len(titles)] == list(titles)]
    assert len(found) == 1, f"{len(found)} tables begin with {titles}"
    return found[0].dictionaries()


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def number(cell: str) -> int:
    return int(cell.strip("*").replace(",", ""))


def files() -> dict[str, str]:
    """Names of timm and torchvision networks -> the file or repository that the document names."""
    kinds: dict[str, Any] = {"HybridViT": Backbone, "EfficientNet": EfficientNetBackbone}
    said = {}
    for row in table("networks", "file", "where it goes"):
        family, member = names(row["networks"])
        name = kinds[family][member].value if family in kinds else f"convnext_{member}"
        (said[name],) = names(row["file"])
        assert row["where it goes"] == ("Hugging Face's cache" if "/" in said[name] else "torch's cache")
    return said


def blocks(section: str) -> list[tuple[str, str]]:
    """(title, code) of each Python block of the section; the title is the line before it."""
    _, _, after = text().partition(f"{section}\n")
    return re.findall(r"([^\n]*)\n\n```python\n(.*?)```", re.split(r"^## ", after, flags=re.M)[0], re.S)
