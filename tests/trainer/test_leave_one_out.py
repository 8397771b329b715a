"""`benchmarks.leave_one_out`: folds that are there are only scored, and every source by the model that never saw it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import tomli_w

from benchmarks.leave_one_out import Fold, Study, figures, lines, main, report
from trainer.data.record import BY_PICKERS, LEAD_S, Record
from trainer.evaluation.protocol import read_scores
from trainer.fitting.run_folder import RunFolder

DETECTOR = Path(__file__).parents[2] / "models" / "zoo" / "detector.pt"
RECIPE: dict[str, Any] = {
    "task": "detect",
    "tensorboard": False,
    "model": {"name": "tiny"},
    "network": {"family": "hybrid_vit", "depth": 1},
    "optimisation": {"epochs": 1, "warm_up_epochs": 0, "batch": 8},
    "evaluation": {"events": False},
}
DATA = {"windows_per_epoch": 8, "dev_windows": 8, "workers": 0, "train": "train", "dev": "train"}


def recipe(folder: Path, data: Path) -> Path:
    path = folder / "tiny.toml"
    source = [{"type": "seisbench", "path": str(data)}]
    path.write_text(tomli_w.dumps({**RECIPE, "data": {**DATA, "source": source}}))
    return path


def finished(study: Study, fold: Fold) -> None:
    """As if it had been fitted; the model is the shipped one."""
    begun(study, fold)
    fold.run.model.symlink_to(DETECTOR)


def begun(study: Study, fold: Fold) -> None:
    fold.run.path.mkdir(parents=True)
    fold.run.recipe.write_text(study.recipe_of(fold).to_toml())
    fold.run.write_about({"folder": "", "data": {}})


def subset(data: Path, folder: Path, **columns: Any) -> Path:
    """Two earthquakes and two pieces of noise under other names."""
    folder.mkdir()
    table = pd.read_csv(data / "metadata.csv").head(4).assign(**columns)
    table["source_id"] = [f"other{row}" if "earthquake" in c else "" for row, c in enumerate(table["trace_category"])]
    table["trace_name"] = ["$".join((name, ":3,:")) for name in table["trace_name"]]
    table.to_csv(folder / "metadata.csv", index=False)
    (folder / "waveforms.hdf5").symlink_to(data / "waveforms.hdf5")
    return folder


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """What the benchmark has made of two folds and a set of noise."""
    folder = tmp_path_factory.mktemp("loo")
    (folder / "few").mkdir()
    pd.read_csv(data / "metadata.csv").head(12).to_csv(folder / "few" / "metadata.csv", index=False)
    (folder / "few" / "waveforms.hdf5").symlink_to(data / "waveforms.hdf5")
    path = recipe(folder, folder / "few")
    origin = {"noise_origin": f"ambient_survey {BY_PICKERS}", "trace_p_status": "teacher", "source_dataset": "small"}
    noise = subset(data, folder / "noise", **origin)
    study = Study(path, (), noise)
    for fold in study.folds(["small", "large"], folder / "out"):
        finished(study, fold)
    arguments = [str(path), "--folds", "small", "--folds", "large", "--out", str(folder / "out"), "--jobs", "2"]
    assert main([*arguments, "--noise", str(noise)]) == 0
    own = read_scores(folder / "out" / "scores.csv")
    own[["trace_name", "time_s", "score"]].assign(score=own["score"] + 1).to_csv(folder / "peer.csv", index=False)
    return folder


def test_every_source_is_scored_by_the_model_that_has_not_seen_it(out: Path) -> None:
    table = pd.read_csv(out / "out" / "scores.csv")
    assert list(table.columns) == ["trace_name", "time_s", "score", "fold"]
    known = pd.read_csv(out / "few" / "metadata.csv").set_index("trace_name")["source_dataset"]
    folds = table.groupby("trace_name")["fold"].agg(["min", "max", "size"])
    assert len(folds) == 12 + 4
    own = folds.loc[known.index]
    assert own["min"].tolist() == own["max"].tolist() == known.tolist()
    assert (own["size"] == 50 + 7 + 1).all()
    assert set(folds["min"].drop(index=known.index)) == {"small"}
    assert read_scores(out / "out" / "small" / "scores.csv")["trace_name"].nunique() == 10


def test_what_pickers_labelled_measures_nothing(out: Path) -> None:
    ours = json.loads((out / "out" / "report.json").read_text())["ours"]
    assert (ours["pooled"]["events"], ours["pooled"]["earthquakes"]) == (6, 6)
    assert {name: own["events"] for name, own in ours["sources"].items()} == {"large": 3, "small": 3}
    hours = sum(own["noise_hours"] for own in ours["sources"].values())
    assert hours == pytest.approx(ours["pooled"]["noise_hours"], abs=2e-3)
    assert hours == pytest.approx((6 * 50 + 6 * 23) / 3600, abs=2e-3)
    assert set(ours["folds"]) == {"small", "large"}
    assert ours["folds"]["small"] is None  # 0.06 h of noise allow no three alarms
    assert (out / "out" / "report.md").read_text().startswith("# Each source left out: tiny\n")


def test_finished_folds_are_read_and_a_peer_is_compared(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("benchmarks.leave_one_out.score_records", None)
    monkeypatch.setattr(subprocess, "run", None)
    arguments = [str(out / "tiny.toml"), "--folds", "small", "--folds", "large", "--out", str(out / "out")]
    peer = ["--noise", str(out / "noise"), "--peer-scores", str(out / "peer.csv")]
    assert main([*arguments, *peer]) == 0
    result = json.loads((out / "out" / "report.json").read_text())
    assert (result["difference"]["difference"], result["difference"]["ci95"]) == (0, [0, 0])
    assert result["peer"]["pooled"]["mean_recall_10s"] == result["ours"]["pooled"]["mean_recall_10s"]
    assert "Ours less the peer's, paired: +0.0000" in capsys.readouterr().out
    lacking = pd.read_csv(out / "peer.csv").query("trace_name != 'trace3'")
    lacking.to_csv(out / "lacking.csv", index=False)
    assert main([*arguments, "--noise", str(out / "noise"), "--peer-scores", str(out / "lacking.csv")]) == 1
    assert "trace3: no scores" in capsys.readouterr().err


def made(name: str, source: str, p_s: float | None = None, seconds: float = 600.0) -> Record:
    lead = LEAD_S * 100
    samples = np.zeros((3, lead + round(seconds * 100)), np.float32)
    p = -1 if p_s is None else lead + round(p_s * 100)
    return Record(name, source, name, samples, "noise" if p_s is None else "earthquake", p=p, lead=lead)


def curve(record: Record, *peaks_s: tuple[float, float]) -> pd.DataFrame:
    """Scores of -9 but at some seconds of the recording."""
    times_s = np.arange(LEAD_S, record.samples.shape[1] / 100 + 0.5)
    scores = np.full(len(times_s), -9.0)
    for at, score in peaks_s:
        scores[round(at)] = score
    return pd.DataFrame({"trace_name": record.name, "time_s": times_s, "score": scores})


def test_sources_stand_at_the_thresholds_of_all_together() -> None:
    events = [made("e1", "a", 60), made("e2", "a", 60), made("e3", "b", 60), made("early", "b", 1.5)]
    noise = [made("n1", "a"), made("n2", "b"), made("n3", "c", seconds=900)]
    peaks = {
        "e1": [(61, 5.0)],
        "e2": [(64, 5.0)],
        "e3": [(61, 0.5)],
        "early": [(2, 5.0)],
        "n1": [(100, 3.0), (103, 2.9), (200, 2.0)],
        "n3": [(500, 1.0), (600, 0.9), (700, 4.0)],
    }
    every = [*noise, *events]
    table = pd.concat([curve(record, *peaks.get(record.name, [])) for record in every])
    found, _ = figures(every, table)
    assert found["pooled"]["noise_hours"] == pytest.approx((2100 + 3 * 58) / 3600, abs=1e-3)  # 10 an hour allow six
    a, b, c = (found["sources"][name] for name in "abc")
    assert a["at_10_per_hour"]["recall"] == {"1s": 0.5, "2s": 0.5, "3s": 0.5, "5s": 1, "10s": 1}
    assert b["at_10_per_hour"]["recall"]["10s"] == 1
    assert c["at_10_per_hour"]["recall"] is None
    assert [one["at_10_per_hour"]["false_alarms"] for one in (a, b, c)] == [2, 0, 3]
    assert c["at_10_per_hour"]["false_an_hour"] == 12
    assert [one["noise_hours"] for one in (a, b, c)] == [round(s / 3600, 3) for s in (716, 658, 900)]
    text = list(lines(report({"a+b": [*events, *noise[:2]], "c": noise[2:]}, table, None, picker=False)))
    assert "| 10 | a | 2 | 0.20 | 0.500 | 0.500 | 0.500 | 1.000 | 1.000 | 10.06 (2) |" in text
    assert "| 10 | c | 0 | 0.25 | - | - | - | - | - | 12.00 (3) |" in text
    assert text[-2] == "- c: no earthquakes, or too little noise"
    assert re.match(r"- a\+b: mean_recall_10s [\d.]+ \([\d.]+ to [\d.]+\), 0\.38 h of noise", text[-3])


def fold(tmp_path: Path, data: Path, *extra: str) -> tuple[list[str], Study, Fold]:
    """Arguments, and what they ask for."""
    path = recipe(tmp_path, data)
    changes = ["model.version=2.0.0"]
    arguments = [str(path), "--folds", "small", "--out", str(tmp_path / "out"), "--set", *changes, *extra]
    study = Study(path, changes, None)
    return arguments, study, study.folds(["small"], tmp_path / "out")[0]


def test_a_fold_is_fitted_without_its_sources(
    tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, study, one = fold(tmp_path, data)
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command[3:])
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(subprocess, "run", run)
    assert main(arguments) == 1
    assert f"small: fit ended with exit code 3: see {tmp_path / 'out' / 'small.log'}" in capsys.readouterr().err
    begun(study, one)
    assert main(arguments) == 1
    out = str(tmp_path / "out" / "small")
    changes = ["--set", "model.version=2.0.0", "--set", 'data.leave_out=["small"]']
    assert asked == [["fit", arguments[0], *changes, "--out", out], ["fit", "--resume", out]]
    assert study.recipe_of(one).data.leave_out == ("small",)


def test_a_fold_of_another_recipe_is_not_taken_for_this_one(
    tmp_path: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, study, one = fold(tmp_path, data)
    finished(study, one)
    assert main([*arguments, "--set", "seed=7"]) == 2
    assert f"{one.run.path}: fitted by another recipe" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folds", "message"),
    [
        (["small,smal"], "--folds: no source 'smal'; there are large, small, town"),
        (["small,"], "--folds: no source ''"),
        (["small", "large,small"], "--folds: small is named twice"),
        (["small", "town"], "--folds town: the recipe has none of it, so nothing is left out"),
    ],
)
def test_folds_that_are_none(
    tmp_path: Path, data: Path, folds: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = subset(data, tmp_path / "noise", source_dataset="town")
    arguments = [str(recipe(tmp_path, data)), "--out", str(tmp_path / "out"), "--noise", str(noise)]
    assert main([*arguments, *(word for one in folds for word in ("--folds", one))]) == 2
    assert message in capsys.readouterr().err


def test_noise_of_a_fold_that_the_recipe_has_not_is_not_asked_to_be_left_out(tmp_path: Path, data: Path) -> None:
    noise = subset(data, tmp_path / "noise", source_dataset="town")
    study = Study(recipe(tmp_path, data), (), noise)
    one = Fold(("small", "town"), RunFolder(tmp_path / "out"))
    assert study.changes_for(one) == ['data.leave_out=["small"]']


@pytest.mark.drill
def test_a_real_fit(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments, _, one = fold(tmp_path, data)
    assert main(arguments) == 0
    assert one.scores.is_file(), (tmp_path / "out" / "small.log").read_text()
    left_out = pd.read_csv(one.run.left_out)
    assert (set(left_out["source"]), set(left_out["reason"])) == ({"small"}, {"leave_out"})
    monkeypatch.setattr(subprocess, "run", None)
    assert main(arguments) == 0
