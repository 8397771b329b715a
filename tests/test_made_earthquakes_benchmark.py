"""Made earthquakes, and which a rule finds, on scores that are known."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks import made_earthquakes as benchmark
from trainer.evaluation.alarms import Rule


def test_what_is_found_is_counted_by_magnitude_and_rule() -> None:
    records = benchmark.made(12, seed=1)
    large = [record for record in records if record.magnitude >= 5]
    assert 0 < len(large) < len(records)
    # Of the large ones each window after P says 3.
    curve = [
        (r.name, float(t), 3.0 if r in large and t > r.p / 100 else -9.0)
        for r in records
        for t in range(r.samples.shape[1] // 100)
    ]
    scores = pd.DataFrame(curve, columns=["trace_name", "time_s", "score"])
    rules = {"loose": Rule(2.0, 1.0, 1), "strict": Rule(4.0, 1.0, 1)}
    rows = {row[0]: row[1:] for row in benchmark.table_of(records, scores, rules).rows}
    assert rows["5 to 8"] == (len(large), len(large), 0)
    assert sum(row[1] for name, row in rows.items() if name != "5 to 8") == len(large)
    assert sum(row[0] for name, row in rows.items() if name != "5 to 8") == len(records)


def test_the_same_seed_makes_the_same() -> None:
    first, again = (benchmark.made(3, seed=5) for _ in range(2))
    assert [r.magnitude for r in first] == [r.magnitude for r in again]
    assert all(r.samples == pytest.approx(o.samples) for r, o in zip(first, again, strict=True))
