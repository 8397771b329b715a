"""Which made earthquakes a detector's own rules find, by magnitude: large ones, of which hardly a recording is at hand.

    python -m benchmarks.made_earthquakes models/zoo/detector.pt [--count 150] [--seed 4711] [--json made.json]

Sources, paths and noise are `trainer.data.synthetic`'s, magnitude 2 to 8 and 3 to 300 km, by another seed than any recipe's. An
earthquake counts as found by an alarm within 10 s of P, none standing before. What is not here: false alarms
(`benchmarks.false_alarms`, `benchmarks.operating_points`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd

from benchmarks.skill import rules
from benchmarks.tables import Table
from quake.artifact import CompiledModel
from streamer.operation import HOP_S
from trainer.assessment import AS_IT_IS
from trainer.data.record import Record
from trainer.data.sources import read_records
from trainer.data.synthetic import Synthetic
from trainer.evaluation.alarms import Rule, assess
from trainer.evaluation.scoring import DetectorScorer, score_records

EDGES = (2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
"""Of the bands of magnitude."""


def made(count: int, seed: int) -> tuple[Record, ...]:
    source = Synthetic(
        type="synthetic",
        count=0,
        noise=0,
        dev_count=count,
        seed=seed,
        magnitude=(EDGES[0], EDGES[-1]),
        distance_km=(3.0, 300.0),
        depth_km=(1.0, 60.0),
        stress_drop_mpa=(0.3, 30.0),
        noise_db=(-170.0, -140.0),
        counts_per_m_s=1e9,
    )
    return read_records([source], "dev", AS_IT_IS, Path()).records


def table_of(records: Sequence[Record], scores: pd.DataFrame, by_name: dict[str, Rule]) -> Table:
    """How many are found, by band and rule; the last row is of magnitude 5 and more."""
    rows = []
    for low, high in (*pairwise(EDGES), (5.0, EDGES[-1])):
        band = [record for record in records if low <= record.magnitude < high]
        table = scores[scores["trace_name"].isin({record.name for record in band})]
        found = (round(assess(band, table, rule).recall * len(band)) if band else 0 for rule in by_name.values())
        rows.append((f"{low:g} to {high:g}", len(band), *found))
    return Table("Made earthquakes that are found", ("magnitude", "made", *by_name), tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--seed", type=int, default=4711)
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    model = CompiledModel.load(chosen.model, "cpu", threads=1)
    records = made(chosen.count, chosen.seed)
    scores = score_records(DetectorScorer(model, model.spec.hop_s or HOP_S), records)
    table = table_of(records, scores, rules(model))
    print(f"{model.spec.name} {model.spec.version}\n{table.markdown()}")
    if chosen.json:
        chosen.json.write_text(
            json.dumps({"sha256": model.sha256, **table.content()}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
