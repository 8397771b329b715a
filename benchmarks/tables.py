"""Tables of measured figures with 95 % intervals, for people and as JSON.

Intervals of recall draw earthquakes within sources; those of rates are Poisson's, exact. What is not here: scores, and
what stands in a table (`benchmarks.skill`, `benchmarks.robustness`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import chi2

from trainer.evaluation.bootstrap import Interval, Rows, intervals
from trainer.evaluation.protocol import Evidence, Flags

MEAN = "mean of these"
"""Row of the mean over a table's groups, each with the same weight."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure and its 95 % interval; NaN where it is not defined, None where none could be computed."""

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.3f}" + ("" if self.low is None else f" [{self.low:.3f}, {self.high:.3f}]")


Cell = Estimate | str | int | float


@dataclass(frozen=True, slots=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    def markdown(self) -> str:
        lines = [self.columns, ["---"] * len(self.columns), *([_said(cell) for cell in row] for row in self.rows)]
        return f"\n**{self.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def content(self) -> dict[str, object]:
        """For JSON, which knows no NaN."""
        rows = [dict(zip(self.columns, map(_plain, row), strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows}


def poisson(count: int, exposure: float) -> Estimate:
    """Rate of ``count`` in ``exposure`` with Garwood's exact interval."""
    if not exposure:
        return Estimate(math.nan)
    low = float(chi2.ppf(0.025, 2 * count)) / 2 if count else 0.0
    return Estimate(count / exposure, low / exposure, float(chi2.ppf(0.975, 2 * count + 2)) / 2 / exposure)


def recalls(
    evidence: Evidence, groups: Mapping[str, Flags], hits: Mapping[str, Flags]
) -> dict[tuple[str, str], Estimate]:
    """Share of each group's records that are hit, by (group, hit), with earthquakes drawn within sources.

    ``groups``: (E,) members; the mean over the groups' recalls is added as the group ``mean of these``.
    """
    members = np.stack(list(groups.values())).astype(float)  # (G, E)
    flags = np.stack(list(hits.values()), axis=1).astype(float)  # (E, H)
    names = [f"{group}\n{hit}" for group in (*groups, MEAN) for hit in hits]

    def statistic(rows: Rows) -> dict[str, float]:
        weights = members * np.bincount(rows, minlength=members.shape[1])  # (G, E)
        with np.errstate(invalid="ignore"):
            shares = (weights @ flags) / weights.sum(axis=1, keepdims=True)  # (G, H)
        drawn = shares[~np.isnan(shares[:, 0])]
        mean = drawn.mean(axis=0) if len(drawn) else np.full(flags.shape[1], np.nan)  # (H,)
        values = np.concatenate([shares.ravel(), mean])
        return {name: float(value) for name, value in zip(names, values, strict=True) if not math.isnan(value)}

    found = statistic(np.arange(members.shape[1]))
    bounds = intervals(statistic, evidence.strata()[:-1])
    return {(name.split("\n")[0], name.split("\n")[1]): _estimate(found, bounds, name) for name in names}


def table_of_recalls(
    title: str, evidence: Evidence, groups: Mapping[str, Flags], hits: Mapping[str, Flags], *, mean: bool = True
) -> Table:
    """One row a group, with how many records it has. ``mean``: and one for their mean."""
    held = {name: rows for name, rows in groups.items() if rows.any()}
    found = recalls(evidence, held, hits)
    counts = {name: int(rows.sum()) for name, rows in held.items()}
    counts |= {MEAN: sum(counts.values())} if mean else {}
    rows: list[tuple[Cell, ...]] = [
        (name, count, *(found[name, hit] for hit in hits)) for name, count in counts.items()
    ]
    return Table(title, ("records", "count", *hits), tuple(rows))


def _estimate(found: Mapping[str, float], bounds: Mapping[str, Interval], name: str) -> Estimate:
    if name not in bounds:
        return Estimate(found[name])
    return Estimate(found[name], bounds[name].low, bounds[name].high)


def _said(cell: Cell) -> str:
    if isinstance(cell, float):
        return "-" if math.isnan(cell) else f"{cell:.3f}"
    return str(cell)


def _plain(cell: Cell) -> object:
    if isinstance(cell, Estimate):
        return {"value": _plain(cell.value), "low": cell.low, "high": cell.high}
    return None if isinstance(cell, float) and math.isnan(cell) else cell
