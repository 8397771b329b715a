"""From weights to a model: what is not defined is left out, what is unlabelled is not scored, a full disk loses nothing."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from quake.artifact import Calibration, CompiledModel, compile_model
from trainer import finish as module
from trainer.cli import main
from trainer.fitting.run_folder import RunFolder

SOURCE = {"type": "synthetic", "name": "made", "count": 10, "noise": 8, "dev_count": 4, "dev_noise": 4}
RECIPE = {
    "task": "detect",
    "tensorboard": False,
    "model": {"name": "tiny"},
    "network": {"family": "hybrid_vit", "depth": 1},
    "data": {"source": [SOURCE], "windows_per_epoch": 8, "dev_windows": 16, "workers": 0},
    "optimisation": {"epochs": 1, "warm_up_epochs": 0.0, "batch": 8},
    "evaluation": {"events": True, "thresholds": {"on": 0.999999, "off": 0.9}},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Of a detector that hears nothing at its thresholds."""
    folder = tmp_path_factory.mktemp("finish")
    (folder / "recipe.toml").write_text(tomli_w.dumps(RECIPE))
    assert main(["fit", str(folder / "recipe.toml"), "--out", str(folder / "run")]) == 0
    return RunFolder(folder / "run")


def test_a_delay_of_nothing_is_left_out_of_the_card(run: RunFolder) -> None:
    skill = {one.measure: one.value for one in CompiledModel.load(run.model, "cpu").spec.skill}
    assert skill["macro recall within 10 s"] == 0
    assert skill["false alarms an hour"] == 0
    assert "median delay after P, s" not in skill
    assert all(math.isfinite(value) for value in skill.values())
    assert run.card.is_file()


POINT = {"name": "standard", "on": 0.9, "off": 0.45, "in_a_row": 3, "aim_an_hour": 1.0, "false_alarms": 4, "hours": 9.0}


@pytest.mark.parametrize(
    ("evaluation", "on"),
    [
        ({"events": False, "thresholds": {"on": 0.9, "off": 0.45}}, 0.9),
        ({"events": True, "operating_point": [POINT], "hop_s": 0.9}, 0.9),
        ({"events": False}, 0.75),  # nothing was stated: what the spec began with parts the same windows
    ],
)
def test_stated_thresholds_stay_when_the_model_is_calibrated(
    evaluation: dict[str, Any], on: float, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At twice the temperature, odds of 9 are odds of 3."""
    other = RunFolder(tmp_path)
    other.furnish()
    for name in ("last", "about"):
        getattr(other, name).write_bytes(getattr(run, name).read_bytes())
    other.recipe.write_text(tomli_w.dumps({**RECIPE, "evaluation": evaluation}))
    monkeypatch.setattr(module, "fit_temperature", lambda *_: Calibration(method="temperature", temperature=2.0))
    assert main(["compile", str(tmp_path)]) == 0
    spec = CompiledModel.load(other.model, "cpu").spec
    assert spec.calibration.temperature == 2
    assert spec.thresholds is not None
    assert spec.thresholds.on == pytest.approx(on)
    if "operating_point" in evaluation:
        assert spec.point("standard").in_a_row == 3
        assert spec.hop_s == 0.9
        assert "| standard | 0.9 | 0.45 | 3 |" in other.card.read_text()
        assert any("3 in a row" in skill.note for skill in spec.skill)


def test_unlabelled_records_of_the_development_split_are_not_scored(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    score = module.score_records

    def noted(scorer, records):  # type: ignore[no-untyped-def]
        seen.extend(record.kind for record in records)
        return score(scorer, records)

    from trainer import fit

    read = fit.read_data

    def with_more(located):  # type: ignore[no-untyped-def]
        train, dev = read(located)
        first = next(record for record in dev.records if record.kind == "noise")
        more = dataclasses.replace(first, name="more", kind="unlabelled", lead=0)
        return train, dataclasses.replace(dev, records=(*dev.records, more))

    monkeypatch.setattr(module, "score_records", noted)
    monkeypatch.setattr(fit, "read_data", with_more)
    assert main(["compile", str(run.path)]) == 0
    assert sorted(set(seen)) == ["earthquake", "noise"]


def test_a_full_disk_leaves_the_model_before_and_says_what_to_do(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = run.model.read_bytes()
    (run.path / "model.tmp").symlink_to("/dev/full")
    assert main(["compile", str(run.path)]) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert f"quake-trainer compile {run.path}" in said
    assert run.model.read_bytes() == before
    assert not (run.path / "model.tmp").is_symlink()


def test_ctrl_c_says_what_to_do(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, compile_model.__name__, interrupted)
    assert main(["compile", str(run.path)]) == 1
    said = capsys.readouterr().err
    assert f"all steps are saved; make the model with: quake-trainer compile {run.path}" in said


@pytest.mark.parametrize("keep", ["last", "best"])
def test_a_run_without_checkpoints_is_no_model(
    keep: str, run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("recipe.toml", "run.json"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    monkeypatch.setattr("trainer.fit.read_data", None)  # it is said before the data are read
    assert main(["compile", str(tmp_path), "--keep", keep]) == 1
    assert f"{keep}.pt: there is no such checkpoint yet" in capsys.readouterr().err


def test_a_checkpoint_of_another_recipe_is_no_model(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = RunFolder(tmp_path)
    other.furnish()
    other.last.write_bytes(run.last.read_bytes())
    other.about.write_bytes(run.about.read_bytes())
    other.recipe.write_text(run.recipe.read_text().replace("depth = 1", "depth = 2"))
    for verb in (["compile", str(tmp_path)], ["fit", "--resume", str(tmp_path)]):
        assert main(verb) == 1
        said = capsys.readouterr().err
        assert "is not of " in said
        assert "blocks.1" in said
        assert len(said) < 500
