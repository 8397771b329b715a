"""Leave one source out: what a recipe's detector does where it has never been.

    python -m benchmarks.leave_one_out RECIPE --folds "a,b" --folds "c" --out FOLDER [--set KEY=VALUE] [--jobs 2]
        [--noise SET] [--peer-scores scores.csv --peer-picker]

For each fold the recipe is fitted without the data sets that the fold names (`data.leave_out`), and the model scores
those sets' records of all splits, nothing left out that can be scored. A fold that is finished is not fitted again, one
that was stopped goes on. ``FOLDER/scores.csv`` has all scores (trace_name, time_s, score, fold), ``report.md`` and
``report.json`` the figures: the comparison by events on all folds together, every source scored by the model that has
never seen it, and each source at the thresholds that so keep to the rates of false alarms. Records that pickers labelled
(`quake-trainer label`), also those of ``--noise``, are scored and measure nothing. Scores of folds are pooled as they
are, each model calibrated on its own dev. What is not here: operating points (`trainer.evaluation.operating`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from quake.artifact import CompiledModel, ModelError
from quake.data.seisbench import DataError
from trainer.assessment import AS_IT_IS
from trainer.data.finding import SourceSection
from trainer.data.record import BY_PICKERS, RATE_HZ, Record
from trainer.data.seisbench_source import SeisBench
from trainer.data.sources import read_records, source_names
from trainer.evaluation.protocol import (
    ALARMS_NEEDED,
    HORIZONS_S,
    MERIT_RATES_PER_HOUR,
    QUIET_UNTIL_S,
    RATES_PER_HOUR,
    Evidence,
    collect,
    detected,
    difference,
    is_fair,
    read_scores,
    summary,
    threshold_for,
)
from trainer.evaluation.scoring import DetectorScorer, score_records
from trainer.fitting.run_folder import RunFolder
from trainer.recipe import Recipe, read_recipe
from trainer.section import FitError, RecipeError

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Fold:
    """Data sets that are left out together."""

    sources: tuple[str, ...]
    run: RunFolder

    @property
    def name(self) -> str:
        return "+".join(self.sources)

    @property
    def scores(self) -> Path:
        """CSV."""
        return self.run.path / "scores.csv"


class Study:
    """A recipe, and all that is scored. ``noise``: a folder in SeisBench's format, of further records."""

    def __init__(self, recipe: Path, changes: Sequence[str], noise: Path | None) -> None:
        located = read_recipe(recipe, changes)
        further = [SeisBench(type="seisbench", path=noise.resolve())] if noise else []
        self.path = recipe
        self.changes = tuple(changes)
        self.folder = located.folder
        self.sources: list[SourceSection] = [*located.recipe.data.source, *further]
        self.trained = source_names(located.recipe.data.source, self.folder)
        self.known = source_names(self.sources, self.folder)

    def changes_for(self, fold: Fold) -> list[str]:
        return [*self.changes, f"data.leave_out={json.dumps([one for one in fold.sources if one in self.trained])}"]

    def recipe_of(self, fold: Fold) -> Recipe:
        return read_recipe(self.path, self.changes_for(fold)).recipe

    def folds(self, texts: Sequence[str], out: Path) -> list[Fold]:
        """RecipeError for a source that is nowhere, or named twice, and for a fold that leaves nothing out."""
        folds = [tuple(part.strip() for part in text.split(",")) for text in texts]
        named = [one for sources in folds for one in sources]
        for one in named:
            if one not in self.known:
                raise RecipeError(f"--folds: no source {one!r}; there are {', '.join(sorted(self.known))}")
            if named.count(one) > 1:
                raise RecipeError(f"--folds: {one} is named twice")
        if idle := [sources for sources in folds if not self.trained.intersection(sources)]:
            raise RecipeError(f"--folds {','.join(idle[0])}: the recipe has none of it, so nothing is left out")
        return [Fold(sources, RunFolder(out / "+".join(sources))) for sources in folds]


def fitted(study: Study, fold: Fold) -> CompiledModel:
    """The fold's model, fitted unless it is there. FitError where that fails, RecipeError where it is another recipe's."""
    run = fold.run
    begun = run.about.is_file()
    if begun and run.recipe.read_text(encoding="utf-8") != study.recipe_of(fold).to_toml():
        raise RecipeError(f"{run.path}: fitted by another recipe: choose another --out, or remove it")
    if not run.model.is_file():
        changes = [argument for change in study.changes_for(fold) for argument in ("--set", change)]
        anew = [str(study.path), *changes, "--out", str(run.path)]
        log = run.path.with_name(f"{run.path.name}.log")
        with log.open("a", encoding="utf-8") as output:
            command = [sys.executable, "-m", "trainer.cli", "fit", *(["--resume", str(run.path)] if begun else anew)]
            done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise FitError(f"{fold.name}: fit ended with exit code {done.returncode}: see {log}")
    return CompiledModel.load(run.model, "cpu")


def left_out_records(study: Study, fold: Fold) -> list[Record]:
    """Of the fold's sources, all splits."""
    others = sorted(study.known.difference(fold.sources))
    found = read_records(study.sources, None, AS_IT_IS, study.folder, others).records
    return [record for record in found if record.kind != "unlabelled"]


def scored(study: Study, fold: Fold) -> tuple[list[Record], pd.DataFrame]:
    """Outlines of the records that the fold leaves out, and their scores: those of the file, where it has them all."""
    model, records = fitted(study, fold), left_out_records(study, fold)
    if not fold.scores.is_file() or set(read_scores(fold.scores)["trace_name"]) != {one.name for one in records}:
        table = score_records(DetectorScorer(model, study.recipe_of(fold).evaluation.hop_s), records)
        temporary = fold.scores.with_suffix(".tmp")
        table.to_csv(temporary, index=False, float_format="%.6f")
        temporary.replace(fold.scores)
    print(f"{fold.name}: {len(records)} records scored", flush=True)
    return [_outline(record) for record in records], read_scores(fold.scores).assign(fold=fold.name)


def _outline(record: Record) -> Record:
    """Without its samples: how many they are is all that is asked from here on."""
    return replace(record, samples=np.broadcast_to(np.float32(0), record.samples.shape))


def figures(records: Sequence[Record], table: pd.DataFrame, *, picker: bool = False) -> tuple[Figures, Evidence]:
    """The comparison by events on all records, and what comes of each source at its thresholds."""
    evidence = collect(records, table, picker=picker)
    homes = np.array(_homes_of_noise(records))  # (K,)
    hours, peaks = float(evidence.hours.sum()), np.sort(np.concatenate(evidence.peaks))[::-1]
    rates = [rate for rate in RATES_PER_HOUR if rate * hours >= ALARMS_NEEDED]
    at = {rate: threshold_for(peaks, hours, rate) for rate in rates}
    sources = {name: _of_source(name, evidence, homes, at) for name in sorted({one.source for one in records})}
    return {"pooled": summary(evidence), "sources": sources}, evidence


def _homes_of_noise(records: Sequence[Record]) -> list[str]:
    """Sources of the evidence's pieces of noise, in its order."""
    homes = []
    for record in filter(is_fair, records):
        end = record.p - QUIET_UNTIL_S * RATE_HZ if record.is_event else record.samples.shape[1]
        if end > record.lead and not (record.is_event and record.is_crowded):
            homes.append(record.source)
    return homes


def _of_source(name: str, evidence: Evidence, homes: np.ndarray, at: Mapping[float, float]) -> Figures:
    own, noise = evidence.sources == name, np.flatnonzero(homes == name)
    hours = float(evidence.hours[noise].sum())
    peaks = np.concatenate([evidence.peaks[piece] for piece in noise]) if len(noise) else np.zeros(0)
    found: Figures = {"events": int(own.sum()), "noise_hours": round(hours, 3)}
    for rate, threshold in at.items():
        alarms = int((peaks >= threshold).sum())
        flags = {f"{h:g}s": detected(evidence, threshold, h)[own] for h in HORIZONS_S}
        found[f"at_{rate:g}_per_hour"] = {
            "recall": {name: round(float(hits.mean()), 4) for name, hits in flags.items()} if own.any() else None,
            "false_alarms": alarms,
            "false_an_hour": round(alarms / hours, 2) if hours else None,
        }
    return found


def alone(records: Sequence[Record], table: pd.DataFrame, *, picker: bool = False) -> Figures | None:
    """The comparison on one fold by itself; None where it has no earthquakes, or too little noise to set a threshold."""
    try:
        evidence = collect(records, table, picker=picker)
    except DataError:  # the whole is checked before: what is missing here is one of both kinds
        return None
    enough = evidence.hours.sum() * MERIT_RATES_PER_HOUR[1] >= ALARMS_NEEDED
    return summary(evidence) if enough else None


def report(
    parts: Mapping[str, Sequence[Record]], table: pd.DataFrame, peer: pd.DataFrame | None, *, picker: bool
) -> Figures:
    """``parts``: by fold what it left out. All figures, as they are written."""
    truth = {name: [one for one in part if BY_PICKERS not in one.origin] for name, part in parts.items()}
    every = [record for part in truth.values() for record in part]
    found, ours = figures(every, table)
    result: Figures = {"ours": {**found, "folds": {name: alone(part, table) for name, part in truth.items()}}}
    if peer is not None:
        found, theirs = figures(every, peer, picker=picker)
        folds = {name: alone(part, peer, picker=picker) for name, part in truth.items()}
        result |= {"peer": {**found, "folds": folds}, "difference": difference(ours, theirs)}
    return result


def lines(result: Figures) -> Iterator[str]:
    """Markdown."""
    for who in ("ours", "peer"):
        if who in result:
            yield from _table(who, result[who])
    if "difference" in result:
        found = result["difference"]
        low, high = found["ci95"]
        yield f"Ours less the peer's, paired: {found['difference']:+.4f} ({low:+.4f} to {high:+.4f}).\n"


def _table(who: str, found: Figures) -> Iterator[str]:
    pooled = found["pooled"]
    low, high = pooled["mean_recall_10s_ci95"]
    yield f"## {who}\n"
    set_of = (
        f"{pooled['events']} records of {pooled['earthquakes']} earthquakes, {pooled['noise_hours']:.2f} h of noise"
    )
    yield f"mean_recall_10s {pooled['mean_recall_10s']:.4f} ({low:.4f} to {high:.4f}): {set_of}, all folds together.\n"
    yield "Thresholds keep to the rate on all folds together.\n"
    horizons = " | ".join(f"{h:g} s" for h in HORIZONS_S)
    yield f"| false alarms an hour | source | records | noise, h | recall within {horizons} | false alarms an hour there |"
    yield "|" + " --- |" * (5 + len(HORIZONS_S))
    for rate in (key for key in pooled if key.startswith("at_")):
        mean = " | ".join(f"{value:.3f}" for value in pooled[rate]["macro_recall"].values())
        aim = rate.removeprefix("at_").removesuffix("_per_hour")
        yield f"| {aim} | mean of sources | {pooled['events']} | {pooled['noise_hours']:.2f} | {mean} | |"
        for name, own in found["sources"].items():
            yield f"| {aim} | {name} | {own['events']} | {own['noise_hours']:.2f} | {_cells(own[rate])} |"
    yield ""
    yield "Each fold by itself, with the thresholds of its own noise:\n"
    for name, own in found["folds"].items():
        yield f"- {name}: {_merit(own)}"
    yield ""


def _cells(at: Figures) -> str:
    recall = at["recall"] or {}
    values = [f"{value:.3f}" for value in recall.values()] or ["-"] * len(HORIZONS_S)
    rate = "-" if at["false_an_hour"] is None else f"{at['false_an_hour']:.2f} ({at['false_alarms']})"
    return " | ".join([*values, rate])


def _merit(own: Figures | None) -> str:
    if own is None:
        return "no earthquakes, or too little noise"
    low, high = own["mean_recall_10s_ci95"]
    return (
        f"mean_recall_10s {own['mean_recall_10s']:.4f} ({low:.4f} to {high:.4f}), {own['noise_hours']:.2f} h of noise"
    )


def run(chosen: argparse.Namespace) -> None:
    study = Study(chosen.recipe, chosen.set, chosen.noise)
    folds = study.folds(chosen.folds, chosen.out)
    if unscored := sorted(study.known.difference(*(fold.sources for fold in folds))):
        print(f"in no fold, so not scored: {', '.join(unscored)}", flush=True)
    peer = read_scores(chosen.peer_scores) if chosen.peer_scores else None
    chosen.out.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(chosen.jobs) as pool:
        outcomes = list(pool.map(lambda fold: scored(study, fold), folds))
    table = pd.concat([scores for _, scores in outcomes], ignore_index=True)
    table.to_csv(chosen.out / "scores.csv", index=False, float_format="%.6f")
    parts = {fold.name: records for fold, (records, _) in zip(folds, outcomes, strict=True)}
    result = report(parts, table, peer, picker=chosen.peer_picker)
    (chosen.out / "report.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    text = "\n".join(lines(result))
    (chosen.out / "report.md").write_text(f"# Each source left out: {chosen.recipe.stem}\n\n{text}", encoding="utf-8")
    print(text)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--folds", action="append", required=True, metavar="A,B", help="sources left out together")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="stands above the recipe")
    parser.add_argument("--jobs", type=int, default=1, help="folds at a time")
    parser.add_argument("--noise", type=Path, help="folder in SeisBench's format: scored too, out of fold")
    parser.add_argument("--peer-scores", type=Path, help="CSV of another detector on the same records, all splits")
    parser.add_argument("--peer-picker", action="store_true", help="the peer looks both ways")
    try:
        run(parser.parse_args(arguments))
    except (DataError, FitError, ModelError, RecipeError, OSError) as error:
        print(error, file=sys.stderr)
        return 2 if isinstance(error, RecipeError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
