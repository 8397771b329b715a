"""Fitting: the same seed gives the same weights, and a few steps go through from data to a model file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from quake.artifact import CompiledModel, read_spec
from trainer.cli import main
from trainer.fit_detector import FitConfig, fit
from trainer.windows import read_records


def short(seed: int) -> FitConfig:
    return FitConfig(steps=3, batch=4, warm_up=1, seed=seed, threads=1)


def test_same_seed_same_weights_other_seed_others(data: Path) -> None:
    records = read_records(data, "train")
    first, again, other = (fit(records, short(seed)).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.weight"], other["head.weight"])


@pytest.fixture(scope="module")
def fitted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted")
    arguments = ["--data", str(data), "--out", str(folder / "m.pt"), "--checkpoint", str(folder / "m.ckpt")]
    assert main(["fit-detector", *arguments, "--steps", "8", "--batch", "8", "--threads", "1"]) == 0
    return folder


def test_fit_writes_a_model_that_loads_and_names_its_data(fitted: Path) -> None:
    model = CompiledModel.load(fitted / "m.pt", "cpu")
    assert model.spec.input_shape == (3, 33, 64)
    assert [(source.name, source.licence) for source in model.spec.training_data] == [
        ("large", "CC0-1.0"),
        ("small", "CC0-1.0"),
    ]
    assert 0.5 <= model.spec.thresholds.on <= 0.99
    assert model.spec.thresholds.off == model.spec.thresholds.on / 2
    assert np.isfinite(model.predict(np.zeros((1, 3, 2080), np.float32))).all()


def test_checkpoint_compiles_to_the_same_weights_with_another_description(data: Path, fitted: Path) -> None:
    described = fitted / "described.json"
    described.write_text('{"version": "2.0.0", "thresholds": {"on": 0.7, "off": 0.2}}')
    out = fitted / "again.pt"
    arguments = ["--data", str(data), "--checkpoint", str(fitted / "m.ckpt"), "--describe", str(described)]
    assert main(["compile", *arguments, "--out", str(out)]) == 0
    first, again = read_spec(fitted / "m.pt"), read_spec(out)
    assert first.weights_sha256 == again.weights_sha256
    assert (again.version, again.thresholds.on, again.thresholds.off) == ("2.0.0", 0.7, 0.2)


def test_evaluate_writes_a_score_each_second_of_every_record(data: Path, fitted: Path) -> None:
    import pandas as pd

    out = fitted / "scores.csv"
    arguments = ["--data", str(data), "--model", str(fitted / "m.pt"), "--out", str(out)]
    assert main(["evaluate", *arguments, "--variant", "z-only"]) == 0
    table = pd.read_csv(out)
    assert list(table.columns) == ["trace_name", "time_s", "score"]
    assert table["trace_name"].nunique() == 16
    times = table[table["trace_name"] == "trace16"]["time_s"]
    assert times.diff().dropna().max() == pytest.approx(1.0)
    assert times.min() <= 60 - 6
    assert times.max() > 60 + 50 - 1
    assert np.isfinite(table["score"]).all()


def test_inspect_prints_the_spec(fitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(fitted / "m.pt")]) == 0
    assert '"spec_version": 1' in capsys.readouterr().out
