"""Recipes: read, changed, refused in a line, and spelled out to themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tomli_w

from trainer.recipe import Recipe, read_recipe
from trainer.section import RecipeError

LEAST: dict[str, Any] = {
    "task": "detect",
    "model": {"name": "tiny"},
    "network": {"family": "efficientnet"},
    "data": {"source": [{"type": "seisbench", "path": "set"}]},
}


COUNTED = {"in_a_row": 3, "false_alarms": 5, "hours": 9.0}
STANDARD: dict[str, Any] = {"name": "standard", "on": 0.92, "off": 0.46, "aim_an_hour": 1.0, **COUNTED}
QUIET: dict[str, Any] = {"name": "quiet", "on": 0.99, "off": 0.495, "aim_an_hour": 0.1, **COUNTED}


def write(folder: Path, **tables: Any) -> Path:
    path = folder / "recipe.toml"
    path.write_text(tomli_w.dumps({**LEAST, **tables}))
    return path


def test_the_least_recipe_and_where_its_paths_count_from(tmp_path: Path) -> None:
    located = read_recipe(write(tmp_path))
    assert located.folder == tmp_path.resolve()
    assert located.recipe.optimisation.rate == 1e-4
    again = tmp_path / "again.toml"
    again.write_text(located.recipe.to_toml())
    assert read_recipe(again).recipe == located.recipe


@pytest.mark.parametrize(
    ("change", "read"),
    [
        ("seed=7", lambda recipe: recipe.seed == 7),
        ("optimisation.betas=[0.8, 0.9]", lambda recipe: recipe.optimisation.betas == (0.8, 0.9)),
        ("data.source.0.path=other", lambda recipe: recipe.data.source[0].path == Path("other")),
        ("data.train = 'a=b'", lambda recipe: recipe.data.train == "a=b"),
        ("evaluation.calibrate=false", lambda recipe: not recipe.evaluation.calibrate),
    ],
)
def test_changes_stand_above_the_file(change: str, read: Any, tmp_path: Path) -> None:
    assert read(read_recipe(write(tmp_path), [change]).recipe)


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"sede": 1}, "sede: no such key; did you mean 'seed'"),
        ({"seed": -1}, "seed: "),
        ({"teacher": [{"model": "x.pt"}]}, "teacher and distillation go together"),
        (
            {"teacher": [{"model": "x.pt"}], "distillation": {}, "augmentation": {"mixing": {"mixup_alpha": 1.0}}},
            "no augmentation.mixing with a teacher",
        ),
        (
            {"progressive": {"from_size": 32, "to_size": 64, "mixup_alpha": [0.0, 0.2]}},
            "progressive.mixup_alpha needs augmentation.mixing",
        ),
        ({"progressive": {"from_size": 32, "to_size": 64, "magnitude": [5, 9]}}, "needs rand_augment"),
        ({"input": {"window_samples": 5301}}, "more than 5300: such a detector cannot be measured by events"),
        ({"optimisation": {"epochs": 5, "warm_up_epochs": 5.0}}, "leave nothing of 5 epochs"),
        ({"doubt": {}}, "doubt is a detector's, in place of loss.label_smoothing, which is to be 0"),
        (
            {"doubt": {}, "loss": {"type": "cross_entropy", "label_smoothing": 0.0}, "task": "characterise"},
            "doubt is a detector's",
        ),
        (
            {"doubt": {"weak_db": 40.0}, "loss": {"type": "cross_entropy", "label_smoothing": 0.0}},
            "strong_db is above weak_db",
        ),
        ({"model": {"name": "Not A Name"}}, "model.name"),
        (
            {"evaluation": {"operating_point": [STANDARD], "thresholds": {"on": 0.9, "off": 0.4}}},
            "operating points need one named standard, and no thresholds beside it",
        ),
        ({"evaluation": {"operating_point": [QUIET]}}, "operating points need one named standard"),
        ({"evaluation": {"operating_point": [STANDARD, QUIET | {"on": 0.8}]}}, "quiet is to give fewer false alarms"),
        ({"evaluation": {"operating_point": [STANDARD | {"onn": 1}]}}, "did you mean 'on'"),
        ({"evaluation": {"operating_point": [STANDARD]}, "task": "characterise"}, "points are a detector's"),
    ],
)
def test_what_cannot_be_followed_is_said_with_file_and_key(
    tables: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = write(tmp_path, **tables)
    with pytest.raises(RecipeError) as caught:
        read_recipe(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


def test_long_windows_are_for_detectors_that_are_not_measured_by_events(tmp_path: Path) -> None:
    long = {"input": {"window_samples": 5301}, "evaluation": {"events": False}}
    assert read_recipe(write(tmp_path, **long)).recipe.input.window_samples == 5301


@pytest.mark.parametrize("change", ["seed", "task.x=1", "data.source.3.path=a", "data.source.x=1"])
def test_a_change_that_has_no_place(change: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=f"--set {change}"):
        read_recipe(write(tmp_path), [change])


@pytest.mark.parametrize("content", [b"a = ", b"\xff\xfe"])
def test_a_file_that_is_not_toml(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(RecipeError, match=r"x\.toml: not TOML"):
        read_recipe(tmp_path / "x.toml")


def test_what_the_model_says_of_itself(tmp_path: Path) -> None:
    recipe: Recipe = read_recipe(write(tmp_path), ["evaluation.thresholds={on=0.8, off=0.3}"]).recipe
    spec = recipe.spec()
    assert (spec.name, spec.task, spec.heads[0].classes) == ("tiny", "detect", ("noise", "earthquake"))
    assert spec.thresholds is not None
    assert (spec.thresholds.on, spec.sampling_rate_hz, spec.components) == (0.8, 100.0, ("Z", "N", "E"))


def test_operating_points_go_to_the_model_with_their_hop(tmp_path: Path) -> None:
    tables: dict[str, Any] = {"evaluation": {"operating_point": [QUIET, STANDARD], "hop_s": 0.5}}
    recipe: Recipe = read_recipe(write(tmp_path, **tables)).recipe
    spec = recipe.spec()
    assert [point.name for point in spec.operating_points] == ["quiet", "standard"]
    assert (spec.thresholds, spec.hop_s) == (spec.point("standard").thresholds, 0.5)
    assert recipe.evaluation.windows_in_a_row == 3
    again = tmp_path / "again.toml"
    again.write_text(recipe.to_toml())
    assert read_recipe(again).recipe == recipe
    assert read_recipe(write(tmp_path)).recipe.spec().hop_s is None
