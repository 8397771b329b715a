"""Whole runs: the same recipe gives the same weights, however it is divided, stopped, killed or gone on with."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from made_recipes import CHARACTERISER, DETECTOR, write_recipe

from quake.artifact import CompiledModel, read_spec
from trainer.cli import main
from trainer.data.loading import Batch
from trainer.fitting import loop
from trainer.fitting.checkpoint import load_checkpoint, save_checkpoint
from trainer.fitting.history import History, Row, read_history
from trainer.fitting.step import Taken

SLOW = {"optimisation__epochs": 3, "checkpoint_steps": 1, "data__windows_per_epoch": 48}


def run(folder: Path, recipe: dict[str, Any], *arguments: str, **changes: Any) -> Path:
    """The folder of a run that went through."""
    out = folder / "run"
    path = write_recipe(folder, recipe, **changes)
    assert main(["fit", str(path), "--out", str(out), *arguments]) == 0
    return out


def weights(out: Path, which: str = "network") -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(out / "checkpoints" / "last.pt")[which]
    return state


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector's run, undisturbed."""
    return run(tmp_path_factory.mktemp("plain"), DETECTOR)


def test_a_run_leaves_all_that_it_is_made_of_and_a_model_that_loads(plain: Path) -> None:
    names = {str(path.relative_to(plain)) for path in plain.rglob("*") if path.is_file()}
    assert names >= {"recipe.toml", "run.json", "left-out.csv", "metrics.jsonl", "model.pt", "card.md"}
    assert names >= {"checkpoints/last.pt", "checkpoints/best.pt", "plots/loss.svg"}
    about = json.loads((plain / "run.json").read_text())
    assert about["seed"] == 3
    assert about["records"] == {"train": 18, "dev": 8, "left_out": 0}
    assert len(about["git"].removesuffix("-dirty")) in {40, 7}  # "unknown" is 7 letters too: not in a checkout
    assert [row.step for row in read_history(plain / "metrics.jsonl")] == [4, 8]
    spec = CompiledModel.load(plain / "model.pt", "cpu").spec
    assert spec.calibration.method in {"none", "temperature"}
    assert [source.name for source in spec.training_data] == ["made"]
    assert any(skill.measure == "event/top_1" for skill in spec.skill)


def test_the_same_recipe_and_seed_give_the_same_weights_with_any_number_of_workers(plain: Path, tmp_path: Path) -> None:
    again = run(tmp_path / "again", DETECTOR, data__workers=2)
    other = run(tmp_path / "other", DETECTOR, seed=4)
    assert same(weights(plain), weights(again))
    assert same(weights(plain, "ema"), weights(again, "ema"))
    assert not same(weights(plain), weights(other))
    assert read_spec(plain / "model.pt").weights_sha256 == read_spec(again / "model.pt").weights_sha256


def test_the_resolved_recipe_gives_the_same_run(plain: Path, tmp_path: Path) -> None:
    assert main(["fit", str(plain / "recipe.toml"), "--out", str(tmp_path / "again")]) == 0
    assert same(weights(plain), weights(tmp_path / "again"))


@pytest.mark.drill
def test_a_step_in_pieces_is_the_same_step(tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", CHARACTERISER)
    pieces = run(tmp_path / "pieces", CHARACTERISER, optimisation__accumulation=4)
    assert closest(whole, pieces) < 1e-5


def closest(first: Path, second: Path) -> float:
    """Largest relative difference of the loss curves."""
    curves = [[row.loss for row in read_history(out / "metrics.jsonl")] for out in (first, second)]
    assert len(curves[0]) == len(curves[1]) > 0
    return max(abs(a - b) / abs(a) for a, b in zip(*curves, strict=True))


def program(*arguments: str, processes: int = 1) -> subprocess.Popen[str]:
    """``quake-trainer`` as a process of its own, or of several."""
    launcher = ["-m", "trainer.cli"]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *launcher]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for(condition: Any, process: subprocess.Popen[str], limit_s: float = 120.0) -> None:
    deadline = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def step_of(out: Path) -> int:
    path = out / "checkpoints" / "last.pt"
    return int(load_checkpoint(path)["step"]) if path.exists() else 0


def test_a_run_that_is_killed_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    expected = run(tmp_path / "whole", DETECTOR, **SLOW)
    recipe = write_recipe(tmp_path / "killed", DETECTOR, **SLOW)
    out = tmp_path / "killed" / "run"
    process = program("fit", str(recipe), "--out", str(out))
    wait_for(lambda: step_of(out) >= 8, process)  # in the midst of the second epoch
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    reached = step_of(out)
    assert 8 <= reached < 18
    assert not (out / "model.pt").exists()
    assert main(["fit", "--resume", str(out)]) == 0
    assert same(weights(expected), weights(out))
    assert same(weights(expected, "ema"), weights(out, "ema"))
    rows, others = (read_history(folder / "metrics.jsonl") for folder in (expected, out))
    assert [(row.step, row.loss, row.dev) for row in rows] == [(row.step, row.loss, row.dev) for row in others]


@pytest.mark.drill
def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    one = run(tmp_path / "one", CHARACTERISER)
    recipe = write_recipe(tmp_path / "two", CHARACTERISER)
    out = tmp_path / "two" / "run"
    process = program("fit", str(recipe), "--out", str(out), processes=2)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert json.loads((out / "run.json").read_text())["processes"] == 2
    assert closest(one, out) < 1e-5
    assert CompiledModel.load(out / "model.pt", "cpu").spec.name == "tiny-characteriser"


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    expected = run(tmp_path / "whole", DETECTOR, optimisation__epochs=3)
    recipe = write_recipe(tmp_path / "stopped", DETECTOR, optimisation__epochs=3, data__workers=1)
    out = tmp_path / "stopped" / "run"
    process = program("fit", str(recipe), "--out", str(out))
    wait_for(lambda: step_of(out) >= 4, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"quake-trainer fit --resume {out}" in said.splitlines()[-1]
    assert "Traceback" not in said
    assert 4 <= step_of(out) < 12
    assert main(["fit", "--resume", str(out)]) == 0
    assert same(weights(expected), weights(out))


def test_a_loss_that_is_no_number_stops_the_run_and_names_the_batch(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = {"optimiser": "sgd", "rate": 1e18, "clip_norm": 0.0, "warm_up_epochs": 1.0, "epochs": 3}
    changes = {f"optimisation__{key}": value for key, value in wild.items()}
    recipe = write_recipe(tmp_path, DETECTOR, checkpoint_steps=1, **changes)
    assert main(["fit", str(recipe), "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "the loss is nan" in said or "the loss is inf" in said or "norm is" in said
    assert "item " in said
    assert "made" in said  # the records' names begin with their source's
    kept = load_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")
    assert kept["step"] >= 1


def test_a_disk_that_is_full_costs_the_newest_state_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(tmp_path, DETECTOR)
    before = (out / "checkpoints" / "last.pt").read_bytes()
    (out / "recipe.toml").write_text((out / "recipe.toml").read_text().replace("epochs = 2", "epochs = 3"))
    (out / "checkpoints" / "last.tmp").symlink_to("/dev/full")
    assert main(["fit", "--resume", str(out)]) == 1
    said = capsys.readouterr().err
    assert "No space left on device" in said
    assert "--resume" in said
    assert (out / "checkpoints" / "last.pt").read_bytes() == before
    assert main(["fit", "--resume", str(out)]) == 0
    assert step_of(out) == 12


def test_early_stopping_ends_the_run_and_the_best_is_kept(tmp_path: Path) -> None:
    stopping = {"patience": 1, "min_delta": 100.0}  # nothing is that much better than the first
    out = run(
        tmp_path, DETECTOR, optimisation__epochs=9, optimisation__early_stopping=stopping, evaluation__keep="best"
    )
    assert step_of(out) == 8
    assert load_checkpoint(out / "checkpoints" / "best.pt")["step"] == 4


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["fit"], 2, "a recipe is needed"),
        (["fit", "nowhere.toml"], 2, "nowhere.toml: cannot be read"),
        (["fit", "RECIPE", "--set", "device=cuda"], 2, "cuda was asked for, and torch finds none"),
        (["fit", "RECIPE", "--set", "optimisation.epoks=1"], 2, "no such key; did you mean 'epochs'?"),
        (["fit", "RECIPE", "--set", "data.source.0.cuont=1"], 2, "did you mean 'count'?"),
        (["fit", "RECIPE", "--set", "data.source.7.count=1"], 2, "no such place"),
        (["fit", "RECIPE", "--set", "seed"], 2, "key=value was expected"),
        (["fit", "RECIPE", "--set", "input.window_samples=63"], 2, "63 samples are fewer than one frame"),
        (["fit", "RECIPE", "--set", "input.representation=decibel"], 2, "range in decibels"),
        (["fit", "RECIPE", "--set", "data.train=nowhere"], 1, "no recording of split 'nowhere'"),
        (["fit", "RECIPE", "--set", "data.source.0.noise=0"], 1, "no record of noise"),
        (["fit", "RECIPE", "--set", "optimisation.batch=64"], 1, "less than one batch of 64"),
        (["fit", "RECIPE", "--set", "optimisation.accumulation=3"], 1, "cannot be divided among 3"),
        (["fit", "RECIPE", "--set", "distillation.alpha=0.5"], 2, "teacher and distillation go together"),
        (["fit", "--resume", "FOLDER"], 2, "not the folder of a run"),
        (["fit", "RECIPE", "--resume", "FOLDER"], 2, "takes no recipe"),
        (["fit", "RECIPE", "--out", "FOLDER"], 2, "is not empty"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = write_recipe(tmp_path / "folder", DETECTOR)
    named = {"RECIPE": str(recipe), "FOLDER": str(tmp_path / "folder")}
    given = [named.get(argument, argument) for argument in arguments]
    if "RECIPE" in arguments and "--out" not in arguments and "--resume" not in arguments:
        given += ["--out", str(tmp_path / "out")]
    assert main(given) == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_data_that_changed_are_refused(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    set_ = tmp_path / "set"
    set_.mkdir()
    for name in ("metadata.csv", "waveforms.hdf5"):
        (set_ / name).write_bytes((data / name).read_bytes())
    out = run(tmp_path, DETECTOR, data__source=[{"type": "seisbench", "path": "set"}], data__dev_windows=8)
    assert set(json.loads((out / "run.json").read_text())["data"]) == {"set/metadata.csv", "set/waveforms.hdf5"}
    with (set_ / "metadata.csv").open("a") as file:
        file.write("\n")
    assert main(["fit", "--resume", str(out)]) == 2
    assert "the data changed since the run began: set/metadata.csv" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("recipe", "changes"),
    [
        (DETECTOR, {"loss": {"type": "focal"}, "class_weights": "inverse_frequency"}),
        (DETECTOR, {"augmentation": {"mixing": {"mixup_alpha": 0.2, "cutmix_alpha": 1.0}}}),
        (DETECTOR, {"optimisation__precision": "bfloat16"}),
        (
            CHARACTERISER,
            {
                "progressive": {"stages": 2, "from_size": 32, "to_size": 64, "magnitude": [2, 9]},
                "input__image": {"height": 64, "width": 64, "normalisation": "imagenet"},
                "augmentation": {"image": [{"type": "rand_augment"}, {"type": "random_erasing", "p": 0.5}]},
            },
        ),
    ],
)
def test_runs_of_other_kinds_go_through(recipe: dict[str, Any], changes: dict[str, Any], tmp_path: Path) -> None:
    out = run(tmp_path, recipe, **{**changes, "optimisation__epochs": 1, "optimisation__warm_up_epochs": 0.0})
    assert (out / "card.md").stat().st_size > 500


@pytest.mark.parametrize("lora", [None, pytest.param({"rank": 2}, marks=pytest.mark.drill)])
def test_fine_tuning_starts_from_a_model_and_goes_on_after_a_stop(
    lora: dict[str, Any] | None, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = {"freeze": True, "unfreeze": [{"epoch": 1}], "rate_after": 0.5}
    tuning = {"start": str(plain / "model.pt"), **({"lora": lora} if lora else release)}
    whole = run(tmp_path / "whole", DETECTOR, fine_tuning=tuning, optimisation__epochs=3)
    changes = {"fine_tuning": tuning, "optimisation__epochs": 3}
    part = run_with_a_stop(tmp_path / "part", DETECTOR, 6, monkeypatch, **changes)  # after the release
    state = load_checkpoint(part / "checkpoints" / "last.pt")
    assert state["step"] == 12
    assert same(weights(whole), weights(part))
    assert CompiledModel.load(whole / "model.pt", "cpu").spec.input_shape == (3, 33, 64)


def test_a_run_that_is_killed_between_its_two_checkpoints_has_both_in_the_end(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, state: dict[str, Any]) -> None:
        if path.name == "last.pt" and state["step"] == 8:
            raise OSError("killed")
        save_checkpoint(path, state)

    recipe = write_recipe(tmp_path, DETECTOR)
    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", killed)
        assert main(["fit", str(recipe), "--out", str(tmp_path / "run")]) == 1
    assert step_of(tmp_path / "run") == 4
    assert main(["fit", "--resume", str(tmp_path / "run")]) == 0
    bests = [load_checkpoint(out / "checkpoints" / "best.pt") for out in (plain, tmp_path / "run")]
    assert bests[0]["step"] == bests[1]["step"]
    assert same(bests[0]["network"], bests[1]["network"])


def test_ctrl_c_in_the_last_validation_is_heard(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    validate = loop.Loop.validate

    def interrupted(self: loop.Loop) -> dict[str, float]:
        if self.step == 8:
            signal.raise_signal(signal.SIGINT)
        return validate(self)

    recipe, out = write_recipe(tmp_path, DETECTOR), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "validate", interrupted)
        assert main(["fit", str(recipe), "--out", str(out)]) == 1
    assert f"stopped after step 8; go on with: quake-trainer fit --resume {out}" in capsys.readouterr().err
    assert not (out / "model.pt").exists()
    assert main(["fit", "--resume", str(out)]) == 0
    assert same(weights(plain), weights(out))


def test_metrics_that_a_full_disk_does_not_take(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(self: History, row: Row) -> None:
        if row.step == 8:
            self._file.write(b'{"step": 8')  # half of it is there
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, row)

    append = History.append
    recipe, out = write_recipe(tmp_path, DETECTOR), tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(History, "append", full)
        assert main(["fit", str(recipe), "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "step 8: the run's folder takes no more: [Errno 28] No space left on device; the last checkpoint" in said
    assert f"quake-trainer fit --resume {out}" in said
    assert main(["fit", "--resume", str(out)]) == 0
    assert same(weights(plain), weights(out))
    assert [row.step for row in read_history(out / "metrics.jsonl")] == [4, 8]


def test_what_could_not_begin_leaves_the_folder_for_what_can(tmp_path: Path) -> None:
    recipe, out = write_recipe(tmp_path / "recipe", DETECTOR), tmp_path / "run"
    wrong = ["data.train=nowhere", "optimisation.batch=64", "optimisation.floor=1.0", "fine_tuning.start=none.pt"]
    for change in wrong:
        assert main(["fit", str(recipe), "--out", str(out), "--set", change]) in {1, 2}
        assert list(out.iterdir()) == []
    one = ["--set", "optimisation.epochs=1"]
    assert main(["fit", str(recipe), "--out", str(out), *one]) == 0


def test_a_validation_that_is_no_number_keeps_the_last_good_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wild = {"optimiser": "sgd", "rate": 1e38, "clip_norm": 0.0, "epochs": 1, "warm_up_epochs": 0.0}
    changes = {f"optimisation__{key}": value for key, value in wild.items()}
    recipe = write_recipe(tmp_path, DETECTOR, data__windows_per_epoch=8, **changes)
    assert main(["fit", str(recipe), "--out", str(tmp_path / "run")]) == 1
    said = capsys.readouterr().err
    assert "step 1: an answer in the validation is no number; nothing is saved yet" in said


def test_a_measure_that_does_not_exist_is_refused_before_the_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = {"patience": 1, "monitor": "event/top_9"}
    recipe = write_recipe(tmp_path, DETECTOR, optimisation__early_stopping=stopping)
    assert main(["fit", str(recipe), "--out", str(tmp_path / "run")]) == 2
    assert "early_stopping.monitor: there is no 'event/top_9', but event/" in capsys.readouterr().err


STOPPING = {"patience": 2, "min_delta": 100.0}
IMAGES = {
    "progressive": {"stages": 2, "from_size": 32, "to_size": 64, "magnitude": [2, 9], "mixup_alpha": [0.0, 0.4]},
    "input__image": {"height": 64, "width": 64, "normalisation": "imagenet"},
    "augmentation": {"image": [{"type": "rand_augment"}], "mixing": {"mixup_alpha": 0.4}},
    "optimisation__accumulation": 2,
    "optimisation__ema_decay": 0.9,
    "data__windows_per_epoch": 24,
}


@pytest.mark.drill
@pytest.mark.parametrize(
    ("recipe", "changes", "at"),
    [
        (DETECTOR, {"optimisation__epochs": 4, "optimisation__early_stopping": STOPPING}, 9),
        (CHARACTERISER, IMAGES, 2),  # within the first stage
    ],
)
def test_a_run_that_goes_on_from_any_step_ends_alike(
    recipe: dict[str, Any], changes: dict[str, Any], at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(tmp_path / "whole", recipe, **changes)
    out = run_with_a_stop(tmp_path / "part", recipe, at, monkeypatch, **changes)
    for which in ("network", "ema"):
        assert same(weights(expected, which), weights(out, which))
    rows, others = (read_history(folder / "metrics.jsonl") for folder in (expected, out))
    assert [(row.step, row.loss, row.dev) for row in rows] == [(row.step, row.loss, row.dev) for row in others]


@pytest.mark.drill
def test_a_student_that_goes_on_hears_its_teacher_again(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"teacher": [{"model": str(plain / "model.pt")}], "distillation": {"alpha": 0.7}}
    expected = run(tmp_path / "whole", DETECTOR, **changes)
    assert not same(weights(plain), weights(expected))
    assert same(weights(expected), weights(run_with_a_stop(tmp_path / "part", DETECTOR, 5, monkeypatch, **changes)))


def run_with_a_stop(
    folder: Path, recipe: dict[str, Any], at: int, monkeypatch: pytest.MonkeyPatch, **changes: Any
) -> Path:
    """The folder of a run that was ended before step ``at`` was taken, and gone on with."""
    took = loop.Loop._take

    def stopped(self: loop.Loop, batch: Batch) -> Taken:
        if self.step == at:
            raise KeyboardInterrupt
        return took(self, batch)

    path, out = write_recipe(folder, recipe, checkpoint_steps=1, **changes), folder / "run"
    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "_take", stopped)
        assert main(["fit", str(path), "--out", str(out)]) == 1
    assert step_of(out) == at
    assert main(["fit", "--resume", str(out)]) == 0
    return out
