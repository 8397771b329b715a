"""Data sets that are left out of both splits, and all splits at once."""

from __future__ import annotations

from pathlib import Path

import pytest
import tomli_w

from quake.data.seisbench import DataError
from trainer.data.quality import Quality
from trainer.data.seisbench_source import SeisBench
from trainer.data.sources import read_records, source_names
from trainer.fit import read_data
from trainer.quantising import quantise_recipe
from trainer.recipe import Located, read_recipe

AS_THEY_COME = Quality()
DETECTOR = Path(__file__).parents[3] / "models" / "zoo" / "detector.pt"
RECIPE = {"task": "detect", "model": {"name": "x"}, "network": {"family": "hybrid_vit", "depth": 1}}


def source(data: Path) -> SeisBench:
    return SeisBench(type="seisbench", path=data)


def located(data: Path, folder: Path, *leave_out: str) -> Located:
    path = folder / "r.toml"
    table = {"source": [{"type": "seisbench", "path": str(data)}]}
    path.write_text(tomli_w.dumps({**RECIPE, "data": table}))
    return read_recipe(path, [f"data.leave_out={list(leave_out)}"])


def test_both_splits_are_without_what_is_left_out(data: Path, tmp_path: Path) -> None:
    found = located(data, tmp_path, "small")
    assert 'leave_out = [\n    "small",\n]' in found.recipe.to_toml()
    train, dev = read_data(found)
    assert {record.source for record in train.records + dev.records} == {"large"}
    assert (len(train.records), len(dev.records)) == (10, 16)
    assert [(one.source, one.name, one.reason) for one in train.left_out] == [
        ("small", f"trace{number}", "leave_out") for number in range(6)
    ]
    assert dev.left_out == ()
    assert train.hashes == read_data(located(data, tmp_path))[0].hashes


def test_a_split_that_is_left_out_whole(data: Path) -> None:
    message = r"split 'dev': all 16 recordings are left out, the first \(trace16\) as .* data.leave_out"
    with pytest.raises(DataError, match=message):
        read_records([source(data)], "dev", AS_THEY_COME, Path(), ["large"])


def test_what_no_source_has_cannot_be_left_out(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.leave_out: no source smal; there are large, small"):
        read_data(located(data, tmp_path, "small", "smal"))
    assert source_names([source(data)], Path()) == {"large", "small"}


def test_all_splits_at_once(data: Path) -> None:
    found = read_records([source(data)], None, AS_THEY_COME, Path())
    assert len(found.records) == 32
    found = read_records([source(data)], None, AS_THEY_COME, Path(), ["large"])
    assert {record.name for record in found.records} == {f"trace{number}" for number in range(6)}
    assert len(found.left_out) == 26
    with pytest.raises(DataError, match=r"all splits: all 32 recordings are left out"):
        read_records([source(data)], None, AS_THEY_COME, Path(), ["large", "small"])


def test_a_recording_without_a_split_is_of_all_splits(data: Path, tmp_path: Path) -> None:
    text = (data / "metadata.csv").read_text().replace(",large,train,", ",large,,")
    (tmp_path / "metadata.csv").write_text(text)
    (tmp_path / "waveforms.hdf5").symlink_to(data / "waveforms.hdf5")
    found = read_records([source(tmp_path)], None, AS_THEY_COME, Path())
    assert (len(found.records), found.left_out) == (32, ())
    one = read_records([source(tmp_path)], "dev", AS_THEY_COME, Path(), ["small"])
    assert [item.reason for item in one.left_out] == ["no_split"] * 10


@pytest.mark.parametrize(
    ("leave_out", "message"),
    [("smal", r"data\.leave_out: no source smal"), ("large", "split 'dev': all 16 recordings are left out")],
)
def test_a_quantisation_leaves_out_of_both_splits(tmp_path: Path, data: Path, leave_out: str, message: str) -> None:
    table = {"source": [{"type": "seisbench", "path": str(data)}], "leave_out": [leave_out]}
    path = tmp_path / "q.toml"
    path.write_text(tomli_w.dumps({"quantisation": {"model": str(DETECTOR)}, "data": table}))
    with pytest.raises(DataError, match=message):
        quantise_recipe(path, tmp_path / "out")
