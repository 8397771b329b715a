"""SeisBench's format in each of its forms, in workers, and what is named when a set is broken."""

from __future__ import annotations

import os
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from torch.utils.data import DataLoader

from quake.data.seisbench import DataError, SeisBenchDataset, Trace

WINDOWS = Path(__file__).parents[4] / "shared" / "data" / "windows"
LAYOUT = {"component_order": "ZNE", "dimension_order": "CW", "sampling_rate": 100.0}


def waveform(seed: int, length: int = 200, components: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).integers(-1000, 1000, (components, length)).astype(np.int32)


def write(
    folder: Path, arrays: dict[str, np.ndarray], rows: Sequence[dict[str, Any]], chunk: str = "", **layout: Any
) -> Path:
    """One chunk; ``layout``: entries of data_format, over those of LAYOUT; None leaves one out."""
    folder.mkdir(exist_ok=True)
    with h5py.File(folder / f"waveforms{chunk}.hdf5", "w") as archive:
        for name, array in arrays.items():
            archive[f"data/{name}"] = array
        for name, value in {**LAYOUT, **layout}.items():
            if value is not None:
                archive[f"data_format/{name}"] = value
    pd.DataFrame(rows).to_csv(folder / f"metadata{chunk}.csv", index=False)
    return folder


def plain(folder: Path, count: int = 6, chunk: str = "", **layout: Any) -> Path:
    """Traces of their own, lengths 200, 201, ...; even ones are of the split train."""
    names = [f"t{chunk}{number}" for number in range(count)]
    rows = [{"trace_name": name, "split": ("train", "dev")[place % 2]} for place, name in enumerate(names)]
    return write(folder, {name: waveform(n, 200 + n) for n, name in enumerate(names)}, rows, chunk, **layout)


def test_a_trace_of_its_own(tmp_path: Path) -> None:
    dataset = SeisBenchDataset(plain(tmp_path))
    assert len(dataset) == 6
    trace = dataset[4]
    assert (trace.name, trace.sampling_rate_hz, trace.metadata["split"]) == ("t4", 100.0, "train")
    assert trace.samples.dtype == np.float32
    np.testing.assert_array_equal(trace.samples, waveform(4, 204))
    assert dataset[-1].name == "t5"
    assert [trace.name for trace in dataset] == [f"t{number}" for number in range(6)]
    with pytest.raises(IndexError):
        dataset[6]


def test_traces_in_a_block(tmp_path: Path) -> None:
    block = np.stack([waveform(seed, 1024) for seed in range(4)])  # (N, C, W)
    names = ["bucket0$3,:3,:1024", "bucket0$0,:3,:700", "bucket0$1", "bucket0$2, 0:3, 10:20", "bucket0$-1,:,:-1000"]
    dataset = SeisBenchDataset(write(tmp_path, {"bucket0": block}, [{"trace_name": name} for name in names]))
    expected = [block[3], block[0, :, :700], block[1], block[2, :, 10:20], block[3, :, :24]]
    for trace, samples in zip(dataset, expected, strict=True):
        np.testing.assert_array_equal(trace.samples, samples)


@pytest.mark.parametrize("listed", [True, False])
def test_chunks(tmp_path: Path, listed: bool) -> None:
    for chunk in ("_2021", "_2020"):
        plain(tmp_path, 2, chunk)
    if listed:
        plain(tmp_path, 1, "_not_listed")
        (tmp_path / "chunks").write_text("_2021\n_2020\n")
    dataset = SeisBenchDataset(tmp_path)
    assert [trace.name for trace in dataset] == ["t_20200", "t_20201", "t_20210", "t_20211"]
    assert dataset.metadata["trace_chunk"].tolist() == ["_2020"] * 2 + ["_2021"] * 2
    np.testing.assert_array_equal(dataset[3].samples, waveform(1, 201))


@pytest.mark.parametrize(
    ("stored", "asked", "places"),
    [
        ("ZNE", "ENZ", [2, 1, 0]),
        ("ENZ", "ZNE", [2, 1, 0]),
        ("Z12", "ZNE", [0, None, None]),
        ("ZNE", "Z", [0]),
        ("ZNE", "ZNEH", [0, 1, 2, None]),
        (["Z", "N", "E"], "NZ", [1, 0]),
    ],
)
def test_components_come_in_the_order_asked_for(
    tmp_path: Path, stored: Any, asked: str, places: list[int | None]
) -> None:
    trace = SeisBenchDataset(plain(tmp_path, component_order=stored), asked)[0]
    for samples, place in zip(trace.samples, places, strict=True):
        np.testing.assert_array_equal(samples, 0 if place is None else waveform(0)[place])


def test_a_traces_own_row_comes_before_what_the_set_says(tmp_path: Path) -> None:
    rows = [
        {"trace_name": "a", "trace_component_order": "ENZ", "trace_sampling_rate_hz": 50.0, "trace_dt_s": 0.01},
        {"trace_name": "b", "trace_component_order": "123", "trace_dt_s": 0.025},
        {"trace_name": "c"},
    ]
    dataset = SeisBenchDataset(write(tmp_path, {name: waveform(0) for name in "abc"}, rows), "Z1")
    assert [trace.sampling_rate_hz for trace in dataset] == [50.0, 40.0, 100.0]
    first = [trace.samples[:, 0] for trace in dataset]
    z, n, e = waveform(0)[:, 0]
    np.testing.assert_array_equal(first, [[e, 0], [0, z], [z, 0]])
    assert n not in np.array(first)


def test_numbers_only_in_the_columns_of_text(tmp_path: Path) -> None:
    rows = [{"trace_name": "007", "trace_component_order": "12"}]
    dataset = SeisBenchDataset(write(tmp_path, {"007": waveform(0, components=2)}, rows), "21")
    np.testing.assert_array_equal(dataset[0].samples, waveform(0, components=2)[::-1])


def test_samples_first(tmp_path: Path) -> None:
    block = np.stack([waveform(seed).T for seed in range(2)])  # (N, W, C)
    rows = [{"trace_name": "b$1,:150,:3"}, {"trace_name": "t"}]
    dataset = SeisBenchDataset(write(tmp_path, {"b": block, "t": waveform(5).T}, rows, dimension_order="WC"))
    np.testing.assert_array_equal(dataset[0].samples, waveform(1)[:, :150])
    np.testing.assert_array_equal(dataset[1].samples, waveform(5))


def test_what_a_set_does_not_say(tmp_path: Path) -> None:
    silent = plain(tmp_path, component_order=None, dimension_order=None, sampling_rate=None, unit="counts")
    with pytest.raises(DataError, match=r"waveforms\.hdf5: trace t0: the set does not state the order"):
        SeisBenchDataset(silent)[0]
    trace = SeisBenchDataset(silent, "EZ", assumed_order="ZNE")[0]
    np.testing.assert_array_equal(trace.samples, waveform(0)[[2, 0]])
    assert np.isnan(trace.sampling_rate_hz)
    with h5py.File(tmp_path / "waveforms.hdf5", "w") as archive:  # no data_format at all
        archive["data/t0"] = waveform(7)
    np.testing.assert_array_equal(SeisBenchDataset(silent, assumed_order="ZNE")[0].samples, waveform(7))


def test_filter_and_split(tmp_path: Path) -> None:
    dataset = SeisBenchDataset(plain(tmp_path))
    train = dataset.split("train")
    assert [trace.name for trace in train] == ["t0", "t2", "t4"]
    later = train.filter(train.metadata["trace_name"] > "t0")
    assert [trace.name for trace in later] == ["t2", "t4"]
    assert later.metadata.index.tolist() == [0, 1]
    assert len(dataset) == 6
    assert len(dataset.filter([False] * 6)) == 0
    with pytest.raises(DataError, match=r"no trace of split 'test' \(there are: dev, train\)"):
        dataset.split("test")
    for wrong in ([True], [1, 0, 1, 0, 1, 0]):
        with pytest.raises(ValueError, match="a mask must be 6 booleans"):
            dataset.filter(wrong)


def listed(traces: list[Trace]) -> list[tuple[int, str, float]]:
    return [(os.getpid(), trace.name, float(trace.samples.sum())) for trace in traces]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_workers_read_for_themselves(tmp_path: Path) -> None:
    dataset = SeisBenchDataset(plain(tmp_path, 12))
    expected = [(trace.name, float(trace.samples.sum())) for trace in dataset]  # the parent's files are open now
    loader = DataLoader(dataset, batch_size=2, num_workers=2, collate_fn=listed, multiprocessing_context="fork")  # type: ignore[arg-type]
    answers = [answer for batch in loader for answer in batch]
    assert [answer[1:] for answer in answers] == expected
    assert len({answer[0] for answer in answers} - {os.getpid()}) == 2


def test_a_fork_opens_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = SeisBenchDataset(plain(tmp_path))
    inherited = dataset._open("")
    assert dataset._open("") is inherited
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert dataset._open("") is not inherited


def test_an_open_set_is_pickled_without_its_files(tmp_path: Path) -> None:
    dataset = SeisBenchDataset(plain(tmp_path), "NZ")
    np.testing.assert_array_equal(dataset[2].samples, waveform(2, 202)[[1, 0]])
    copy = pickle.loads(pickle.dumps(dataset))
    np.testing.assert_array_equal(copy[2].samples, dataset[2].samples)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metadata\.csv: cannot be read: .*No such file"):
        SeisBenchDataset(tmp_path)
    plain(tmp_path)
    (tmp_path / "waveforms.hdf5").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"waveforms\.hdf5: cannot be read"):
        SeisBenchDataset(tmp_path)[0]
    (tmp_path / "chunks").write_text("_a\n")
    with pytest.raises(DataError, match=r"metadata_a\.csv: cannot be read"):
        SeisBenchDataset(tmp_path)
    (tmp_path / "metadata_a.csv").write_text("name\nx\n")
    with pytest.raises(DataError, match=r"metadata_a\.csv: no column trace_name"):
        SeisBenchDataset(tmp_path)
    (tmp_path / "metadata_a.csv").write_text("trace_name\nx\n")
    with pytest.raises(DataError, match="the metadata have no column split"):
        SeisBenchDataset(tmp_path).split("train")
    with pytest.raises(DataError, match=r"waveforms_a\.hdf5: cannot be read"):
        SeisBenchDataset(tmp_path)[0]


@pytest.mark.parametrize(
    ("name", "layout", "message"),
    [
        ("gone", {}, "trace gone: cannot be read"),
        ("block$9,:3,:10", {}, r"trace block\$9,:3,:10: cannot be read"),
        ("block$,:3", {}, r"trace block\$,:3: cannot be read: ',:3' is no place within a block"),
        ("block$x", {}, r"trace block\$x: cannot be read: invalid literal"),
        ("block$0:1", {}, r"trace block\$0:1: must be components and samples, not of shape \(1, 3, 200\)"),
        ("block", {}, r"trace block: must be components and samples, not of shape \(2, 3, 200\)"),
        ("t", {"component_order": "ZN"}, "trace t: 3 components stored, and the order 'ZN' has 2"),
        ("t", {"component_order": "XYW"}, "trace t: holds components 'XYW', none of 'ZNE'"),
        ("t", {"dimension_order": "CIW"}, "dimension_order must be CW or WC, not 'CIW'"),
    ],
)
def test_a_trace_at_fault_is_named(tmp_path: Path, name: str, layout: dict[str, str], message: str) -> None:
    arrays = {"t": waveform(0), "block": np.stack([waveform(0), waveform(1)])}
    dataset = SeisBenchDataset(write(tmp_path, arrays, [{"trace_name": name}], **layout))
    with pytest.raises(DataError, match=r"waveforms\.hdf5: " + message):
        dataset[0]


@pytest.fixture
def windows() -> Path:
    """The real recordings; skips where they are not, except in CI."""
    if not WINDOWS.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{WINDOWS} is missing, and CI must have it")
        pytest.skip(f"{WINDOWS} is missing")
    return WINDOWS


@pytest.mark.shared
def test_the_real_set(windows: Path) -> None:
    dataset = SeisBenchDataset(windows, "ENZ")
    dev = dataset.split("dev")
    assert (len(dataset), len(dataset.split("train")), len(dev)) == (1765, 1466, 299)
    with h5py.File(windows / "waveforms.hdf5", "r") as archive:
        for index in range(0, len(dev), 25):
            trace = dev[index]
            stored = archive["data"][trace.name][()]
            assert trace.samples.shape == (3, trace.metadata["trace_npts"])
            assert trace.sampling_rate_hz == 100.0
            np.testing.assert_array_equal(trace.samples, stored[::-1].astype(np.float32))
