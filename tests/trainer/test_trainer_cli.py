"""Exit codes and messages of ``quake-trainer``, and the recipes that come with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.augmentation.chain import DEFAULT_DETECTOR_WAVEFORM
from trainer.cli import main
from trainer.quantising import QuantisationRecipe
from trainer.recipe import read_recipe, read_table

RECIPES = Path(__file__).parents[2] / "trainer" / "recipes"
FITS = sorted(path for path in RECIPES.glob("*.toml") if path.name != "quantise.toml")


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["fly"],
        ["inspect"],
        ["distill"],
        ["evaluate", "m.pt"],
        ["evaluate", "m.pt", "--data", "x", "--threads", "0"],
        ["quantize", "r.toml"],
    ],
)
def test_wrong_usage_is_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: quake-trainer" in capsys.readouterr().err


def test_a_model_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "m.pt"
    path.write_bytes(b"no model")
    assert main(["inspect", str(path)]) == 1
    assert f"{path}: neither a TorchScript nor an ONNX file" in capsys.readouterr().err


def test_data_that_are_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    detector = RECIPES.parents[1] / "models" / "zoo" / "detector.pt"
    assert main(["evaluate", str(detector), "--data", str(tmp_path / "none")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("quake-trainer: ")
    assert str(tmp_path / "none" / "metadata.csv") in error


def test_a_recipe_without_teachers_is_not_distilled(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", str(RECIPES / "smoke.toml")]) == 2
    assert "no [[teacher]] to learn from" in capsys.readouterr().err


@pytest.mark.parametrize("path", FITS, ids=lambda path: path.stem)
def test_the_recipes_are_right_and_spell_out_to_themselves(path: Path, tmp_path: Path) -> None:
    recipe = read_recipe(path).recipe
    again = tmp_path / "again.toml"
    again.write_text(recipe.to_toml())
    assert read_recipe(again).recipe == recipe


def test_there_are_the_recipes_that_are_spoken_of() -> None:
    assert {path.stem for path in FITS} >= {
        "smoke",
        "detector-hybridvit",
        "detector-efficientnet",
        "characteriser-convnext",
        "distill",
    }
    read_table(RECIPES / "quantise.toml", QuantisationRecipe)


@pytest.mark.parametrize("family", ["hybridvit", "efficientnet"])
def test_both_detectors_are_augmented_as_the_first_one_was_and_hear_traffic(family: str) -> None:
    """But for silence, which the windows have of their own."""
    recipe = read_recipe(RECIPES / f"detector-{family}.toml").recipe
    expected = [change for change in DEFAULT_DETECTOR_WAVEFORM if change.type != "silence"]
    changes = [change for change in recipe.augmentation.waveform if change.type not in {"passing", "footsteps"}]
    assert changes == expected
    assert len(recipe.augmentation.waveform) == len(expected) + 2
    assert recipe.windows.silence_share == 0.015


def test_the_documents_schedules_are_in_recipes() -> None:
    images = read_recipe(RECIPES / "characteriser-convnext-images.toml").recipe
    first = images.optimisation
    assert (first.rate, first.reference_batch, first.epochs, first.warm_up_epochs) == (1e-4, 64, 50, 5)
    assert (first.weight_decay, first.betas, first.epsilon, first.floor) == (0.05, (0.9, 0.999), 1e-8, 0.0)
    assert [(change.type, change.p) for change in images.augmentation.image] == [
        ("random_horizontal_flip", 0.5),
        ("random_rotation", 1.0),
        ("color_jitter", 1.0),
        ("random_affine", 1.0),
        ("random_erasing", 0.1),
    ]
    assert images.spec().spectrogram.resized_size == (256, 256)
    general = read_recipe(RECIPES / "characteriser-convnext-general.toml").recipe.optimisation
    assert (general.rate, general.reference_batch, general.epochs, general.warm_up_epochs) == (4e-3, 4096, 300, 20)
    assert general.peak_rate(general.batch) == pytest.approx(4e-3 * 256 / 4096)
