"""``quake-trainer evaluate``: what a model is worth on a labelled set, as a table, JSON, scores and a report page.

Windows of every record, with figures of classification; for a detector also the comparison by events, the daemon's
alarms at the model's thresholds, and whether it knows only the past. What is not here: how any of it is measured.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from quake.artifact import CompiledModel, ModelError, ModelSpec, Thresholds
from quake.data.decision import STANDARD, log_odds
from quake.data.seisbench import DataError
from trainer.data.drawing import Drawer, Windows
from trainer.data.loading import ItemMaker, View
from trainer.data.quality import Quality
from trainer.data.record import COMPONENTS, RATE_HZ, Record
from trainer.data.seisbench_source import SeisBench
from trainer.data.sources import read_records
from trainer.evaluation import report
from trainer.evaluation.alarms import Rule, assess
from trainer.evaluation.bootstrap import Rows, intervals, strata_of
from trainer.evaluation.breakdown import break_down
from trainer.evaluation.causality import Violation, check_causal, some_of
from trainer.evaluation.metrics import metrics
from trainer.evaluation.protocol import Evidence, collect, difference, read_scores, summary
from trainer.evaluation.scoring import DetectorScorer, score_records
from trainer.evaluation.worst import worst_false_alarms, worst_misses
from trainer.fitting.history import Row, read_history
from trainer.fitting.run_folder import RunFolder

AS_IT_IS = Quality(
    shortest_s=False, earliest_p_s=False, dead=False, clipped_share=False, s_after_p=False, duplicates=False
)
"""What is measured is not chosen: every recording that can be scored is."""
SEED = 99
BATCH = 64

Answers = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked."""

    data: Path
    """Folder in SeisBench's format."""
    split: str = "dev"
    windows: int = 2048
    """For the figures of classification; each record gives some."""
    events: bool = False
    """Compare by events: asked of detectors alone."""
    against: Path | None = None
    """Scores of another detector on the same records."""
    against_picker: bool = False
    """It looks both ways."""
    hop_s: float | None = None
    """Between windows; None: the model's, 1 where it has none."""
    variant: str = "recorded"
    in_a_row: int = 2
    """Windows that open an alarm, where the model has no operating points."""
    causal_records: int = 0
    """How many records are checked for causality; 0: none."""


@dataclass(frozen=True, slots=True)
class Windowed:
    """Answers to windows."""

    probabilities: Mapping[str, Answers]
    """By head (N, classes)."""
    targets: Mapping[str, Answers]
    """(N, classes); zeros where the class is not known."""
    records: tuple[Record, ...]
    """(N,) that each window was cut from."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What was found."""

    windowed: Windowed
    figures: Mapping[str, report.Number]
    records: tuple[Record, ...]
    scores: pd.DataFrame | None = None
    """Columns trace_name, time_s and score: of a detector."""
    events: Mapping[str, Any] | None = None
    alarms: Mapping[str, float] | None = None
    violations: tuple[Violation, ...] | None = None
    """Scores that knew the future; None: not looked for."""

    def to_json(self, model: CompiledModel, question: Question) -> str:
        """All figures; null where one is not defined."""
        content = {
            "model": {"name": model.spec.name, "version": model.spec.version, "sha256": model.sha256},
            "data": {"folder": question.data.name, "split": question.split, "records": len(self.records)},
            "windows": {name: _stated(number) for name, number in self.figures.items()},
            "events": self.events,
            "alarms": self.alarms,
            "not_causal": None if self.violations is None else [str(one) for one in self.violations],
        }
        return json.dumps(_finite(content), indent=2) + "\n"

    def lines(self) -> Iterator[str]:
        """A table for people."""
        for name, number in self.figures.items():
            interval = "" if number.low is None else f"  {number.low:.4f} to {number.high:.4f}"
            yield f"{name:<40}{_said(number.value):>10}{interval}{f'  ({number.note})' if number.note else ''}"
        for name, value in (self.alarms or {}).items():
            yield f"{name:<40}{_said(value):>10}"
        if self.events:
            low, high = self.events["mean_recall_10s_ci95"]
            yield f"{'mean_recall_10s':<40}{_said(self.events['mean_recall_10s']):>10}  {low:.4f} to {high:.4f}"
            if against := self.events.get("against"):
                low, high = against["ci95"]
                name = f"difference to {against['scores']}"
                yield f"{name:<40}{_said(against['difference']):>10}  {low:.4f} to {high:.4f}"
        if self.violations is not None:
            yield f"{'scores that knew the future':<40}{len(self.violations):>10}"


def evaluate(model: CompiledModel, question: Question) -> Assessment:
    """DataError for a set that cannot be measured on, ModelError where a characteriser is asked what a detector does.

    What can be refused is, before the first window is answered.
    """
    is_detector = model.spec.task == "detect"
    if not is_detector and (question.events or question.causal_records or question.variant != "recorded"):
        raise ModelError(f"{model.path}: a characteriser has no alarms: only detectors are scored along records")
    require_known_input(model.spec, model.path)
    scorer = DetectorScorer(model, question.hop_s or model.spec.hop_s or 1.0, question.variant) if is_detector else None
    theirs = read_scores(question.against) if question.against else None
    source = SeisBench(type="seisbench", path=question.data.resolve())
    records = read_records([source], question.split, AS_IT_IS, Path()).records
    others = None if theirs is None else _evidence_of_others(records, theirs, question)
    windowed = answer_windows(model, records, question.windows)
    figures = window_figures(model, windowed)
    if scorer is None:
        return Assessment(windowed, figures, records)
    scores = score_records(scorer, records)
    return Assessment(
        windowed,
        figures,
        records,
        scores,
        _events(records, scores, question, others) if question.events else None,
        _alarms(model, records, scores, question),
        check_causal(scorer, some_of(records, question.causal_records)) if question.causal_records else None,
    )


def require_known_input(spec: ModelSpec, path: Path) -> None:
    """ModelError for a model that reads other than what records hold."""
    if spec.components != tuple(COMPONENTS) or spec.sampling_rate_hz != RATE_HZ:
        reads = f"{'/'.join(spec.components)} at {spec.sampling_rate_hz:g} Hz"
        raise ModelError(f"{path}: reads {reads}, and records are {'/'.join(COMPONENTS)} at {RATE_HZ} Hz")


def answer_windows(model: CompiledModel, records: Sequence[Record], count: int) -> Windowed:
    """Windows of the records in turn, each at least once, at the ages that detectors are trained at by default."""
    drawer = Drawer.in_turn(records, Windows(), SEED)
    maker = ItemMaker(drawer, View.of(model.spec), SEED)
    items = range(max(count, len(records)))
    parts = [maker.batch(items[begin : begin + BATCH]) for begin in range(0, len(items), BATCH)]
    answers = np.concatenate([model.score(part.images.numpy()) for part in parts])
    heads = [head.name for head in model.spec.heads]
    truth = [np.concatenate([t.numpy() for t in head]) for head in zip(*(part.targets for part in parts), strict=True)]
    turns = [turn.records[0] for turn in drawer.turns]
    rows = tuple(turns[item % len(turns)] for item in items)
    return Windowed(model.spec.by_head(answers), dict(zip(heads, truth, strict=True)), rows)


def window_figures(model: CompiledModel, windowed: Windowed) -> dict[str, report.Number]:
    """Figures of classification with intervals over earthquakes."""
    answers, truth = list(windowed.probabilities.values()), list(windowed.targets.values())
    heads = model.spec.heads

    def of(rows: Rows) -> Mapping[str, float]:
        return metrics([head[rows] for head in answers], [head[rows] for head in truth], heads).figures

    found = metrics(answers, truth, heads)
    bounds = intervals(of, strata_of(windowed.records))
    numbers = {
        name: report.Number(name, value, *((bounds[name].low, bounds[name].high) if name in bounds else ()))
        for name, value in found.figures.items()
    }
    return numbers | {name: report.Number(name, math.nan, note=why) for name, why in found.left_out.items()}


def write(folder: Path, model: CompiledModel, question: Question, found: Assessment, history: Sequence[Row]) -> Path:
    """The report page; returns its path. ``history``: of the run that made the model, if it is known."""
    thresholds = _thresholds(model.spec.thresholds) if model.spec.thresholds else {}
    scores, on = found.scores, thresholds.get("on", math.nan)
    findings = report.Findings(
        spec=model.spec,
        sha256=model.sha256,
        data=question.data.name,
        split=question.split,
        counts=_counts(found.records),
        numbers=_tables(found),
        answers=[
            report.Answers(head.name, head.classes, found.windowed.probabilities[head.name], truth)
            for head, truth in zip(model.spec.heads, found.windowed.targets.values(), strict=True)
        ],
        breakdown=None if scores is None else break_down(found.records, scores, {"on": on, **_rates(found.events)}),
        thresholds=thresholds,
        misses=None if scores is None else worst_misses(found.records, scores, on),
        false_alarms=None if scores is None else worst_false_alarms(found.records, scores, on),
        history=history or None,
        not_measured=() if found.violations is not None else ("Causality: --check-causal was not asked for.",),
    )
    return report.write_report(folder, findings)


def history_beside(model: Path) -> list[Row]:
    """Of the run in whose folder a model lies; empty where it lies elsewhere."""
    metrics_file = RunFolder(model.parent).metrics
    return read_history(metrics_file) if metrics_file.exists() else []


def _evidence_of_others(records: Sequence[Record], theirs: pd.DataFrame, question: Question) -> Evidence:
    try:
        return collect(records, theirs, picker=question.against_picker)
    except DataError as error:
        raise DataError(f"{question.against}: {error}") from error


def _events(
    records: Sequence[Record], scores: pd.DataFrame, question: Question, others: Evidence | None
) -> dict[str, Any]:
    evidence = collect(records, scores)
    result = summary(evidence)
    if others and question.against:
        result["against"] = {"scores": question.against.name, **difference(evidence, others)}
    return result


def _alarms(
    model: CompiledModel, records: Sequence[Record], scores: pd.DataFrame, question: Question
) -> dict[str, float]:
    """At the model's own thresholds, as the daemon would open them."""
    limits = _thresholds(model.spec.thresholds) if model.spec.thresholds else {}
    has_points = bool(model.spec.operating_points)
    in_a_row = model.spec.point(STANDARD).in_a_row if has_points else question.in_a_row
    return asdict(assess(records, scores, Rule(limits["on"], limits["off"], in_a_row)))


def _thresholds(limits: Thresholds) -> dict[str, float]:
    """Log-odds."""
    return {"on": log_odds(limits.on), "off": log_odds(limits.off)}


def _counts(records: Sequence[Record]) -> dict[str, int]:
    events = [record for record in records if record.is_event]
    return {
        "records of earthquakes": len(events),
        "earthquakes": len({record.source_id for record in events}),
        "records of noise": len(records) - len(events),
    }


def _tables(found: Assessment) -> dict[str, Sequence[report.Number]]:
    tables: dict[str, Sequence[report.Number]] = {"Windows": list(found.figures.values())}
    if found.alarms:
        tables["Alarms at the model's thresholds"] = [report.Number(*pair) for pair in found.alarms.items()]
    if found.events:
        merit, ends = found.events["mean_recall_10s"], found.events["mean_recall_10s_ci95"]
        rows = [report.Number("mean_recall_10s", merit, *ends)]
        if against := found.events.get("against"):
            rows.append(report.Number(f"difference to {against['scores']}", against["difference"], *against["ci95"]))
        for rate, at in found.events.items():
            if rate.startswith("at_"):
                rows += [report.Number(f"macro recall {h}, {rate}", v) for h, v in at["macro_recall"].items()]
        tables["By events"] = rows
    return tables


def _rates(events: Mapping[str, Any] | None) -> dict[str, float]:
    """Thresholds of the comparison by events, by their rates."""
    at = {name: figures["threshold"] for name, figures in (events or {}).items() if name.startswith("at_")}
    return {name.removeprefix("at_").replace("_per_", " false an "): threshold for name, threshold in at.items()}


def _stated(number: report.Number) -> dict[str, Any]:
    return {"value": number.value, "low": number.low, "high": number.high, "note": number.note}


def _said(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _finite(value: Any) -> Any:
    """JSON has no word for NaN."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
