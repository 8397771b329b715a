"""What steps are fed with: the same windows however they are divided, mixed and sized as their stage asks for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_recipes import CHARACTERISER, DETECTOR, write_recipe

from quake.data.seisbench import DataError
from trainer.augmentation.image import RandAugment
from trainer.data.loading import Batch
from trainer.fit import read_data
from trainer.fitting.feed import Feed, validation_of
from trainer.fitting.ranks import Ranks
from trainer.recipe import Recipe, read_recipe

CPU = torch.device("cpu")
FEW = {"data__windows_per_epoch": 16, "optimisation__epochs": 2, "optimisation__warm_up_epochs": 0.0}


def made(folder: Path, kind: dict[str, Any], ranks: Ranks | None = None, **changes: Any) -> tuple[Recipe, Feed]:
    located = read_recipe(write_recipe(folder, kind, **{**FEW, **changes}))
    train, dev = read_data(located)
    feed = Feed(located.recipe, located.folder, train.records, dev.records, ranks or Ranks(CPU))
    return located.recipe, feed


def same(first: Batch, second: Batch) -> bool:
    pairs = zip((first.images, *first.targets), (second.images, *second.targets), strict=True)
    return all(torch.equal(one, other) for one, other in pairs)


def test_the_processes_share_the_windows_of_one(tmp_path: Path) -> None:
    _, alone = made(tmp_path, DETECTOR)
    parts = [made(tmp_path, DETECTOR, Ranks(CPU, rank, 2))[1] for rank in (0, 1)]
    assert [alone.total_steps, *(part.total_steps for part in parts)] == [4, 4, 4]
    for whole, *shares in zip(alone.batches(0), *(part.batches(0) for part in parts), strict=True):
        assert torch.equal(torch.cat([share.images for share in shares]), whole.images)
        assert torch.equal(torch.cat([share.targets[0] for share in shares]), whole.targets[0])


def test_a_run_that_goes_on_gets_the_windows_that_it_would_have_got(tmp_path: Path) -> None:
    _, feed = made(tmp_path, DETECTOR)
    whole, rest = list(feed.batches(0)), list(feed.batches(3))
    assert len(rest) == 1
    assert same(whole[3], rest[0])
    assert not same(whole[0], rest[0])
    assert list(feed.batches(4)) == []


def test_stages_have_their_own_size_and_strength(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {"stages": 2, "from_size": 32, "to_size": 64, "magnitude": [2, 9], "mixup_alpha": [0.0, 5.0]}
    changes = {
        "progressive": stages,
        "input__image": {"height": 64, "width": 64},
        "augmentation": {"image": [{"type": "rand_augment"}], "mixing": {"mixup_alpha": 1.0}},
    }
    strengths: list[int] = []
    monkeypatch.setattr(RandAugment, "apply", lambda self, image, rng: strengths.append(self.magnitude) or image)
    _, feed = made(tmp_path, CHARACTERISER, **changes)
    pieces = [feed.piece(batch, step) for step, batch in enumerate(feed.batches(0))]
    assert [piece[0].shape[2:] for piece in pieces] == [(32, 32), (32, 32), (64, 64), (64, 64)]
    assert strengths == [2] * 16 + [9] * 16
    is_mixed = [bool(((targets[1] > 0) & (targets[1] < 1)).any()) for _, targets in pieces]
    assert is_mixed == [False, False, True, True]
    resumed = [feed.piece(batch, 3) for batch in feed.batches(3)]
    assert torch.equal(resumed[0][0], pieces[3][0])


def test_labels_leave_what_the_recipe_doubts_but_where_a_run_is_measured(tmp_path: Path) -> None:
    loss = {"type": "cross_entropy", "label_smoothing": 0.0}
    _, feed = made(tmp_path, DETECTOR, doubt={"noise": 0.25, "weak": 0.125, "strong": 0.125}, loss=loss)
    trained = {float(value) for batch in feed.batches(0) for value in batch.targets[0].ravel()}
    assert trained == {0.25, 0.75, 0.125, 0.875}
    assert {float(value) for batch in feed.validation() for value in batch.targets[0].ravel()} == {0.0, 1.0}


def test_mixtures_differ_by_step_and_by_process(tmp_path: Path) -> None:
    mixing = {"augmentation": {"mixing": {"mixup_alpha": 1.0}}}
    feeds = [made(tmp_path, DETECTOR, Ranks(CPU, rank, 2), **mixing)[1] for rank in (0, 1)]
    batch = next(iter(feeds[0].batches(0)))
    images = [feed.piece(batch, step)[0] for feed in feeds for step in (0, 1)]
    assert len({image.numpy().tobytes() for image in images}) == 4
    assert torch.equal(feeds[0].piece(batch, 1)[0], images[1])


def test_the_validation_is_the_same_in_every_run(tmp_path: Path) -> None:
    first, feed = made(tmp_path, DETECTOR, seed=1)
    second, other = made(tmp_path, DETECTOR, seed=2, augmentation={"waveform": []})
    again = [list(one.validation()) for one in (feed, feed, other)]
    assert sum(map(len, again[0])) == first.data.dev_windows == second.data.dev_windows
    assert all(same(one, two) for batches in again[1:] for one, two in zip(again[0], batches, strict=True))
    dev = read_data(read_recipe(tmp_path / "recipe.toml"))[1].records
    assert all(same(*pair) for pair in zip(again[0], validation_of(second, dev), strict=True))


def test_a_batch_is_described_by_its_records(tmp_path: Path) -> None:
    _, feed = made(tmp_path, DETECTOR)
    batch = next(iter(feed.batches(2)))
    assert np.array_equal(batch.items, np.arange(16, 24))
    said = feed.describe(batch)
    assert said.count("item ") == 8
    assert "item 16 (" in said


@pytest.mark.parametrize(
    ("changes", "world", "message"),
    [
        ({}, 3, "8 cannot be divided among 3"),
        ({"optimisation__accumulation": 3}, 2, "8 cannot be divided among 6"),
        ({"data__windows_per_epoch": 7}, 1, "an epoch of 7 windows is less than one batch of 8"),
    ],
)
def test_steps_that_cannot_be_made(changes: dict[str, Any], world: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        made(tmp_path, DETECTOR, Ranks(CPU, 0, world), **changes)
