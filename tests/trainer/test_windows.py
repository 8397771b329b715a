"""Reading a data set, and what is cut out of it."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from trainer.windows import GUARD_S, LEAD_S, DataError, Drawer, read_records, with_lead

LEAD = LEAD_S * 100


def test_records_are_led_in_by_their_own_noise(data: Path) -> None:
    records = read_records(data, "train")
    assert [record.is_event for record in records] == [True, False] * 8
    event, noise = records[:2]
    assert event.samples.shape == (3, LEAD + 5000)
    assert (event.p, event.s) == (LEAD + 2500, LEAD + 2800)
    assert (noise.p, noise.s, noise.origin) == (-1, -1, "")
    assert abs(event.samples[:, : event.p - 100].mean()) < 1  # 5000 counts before
    np.testing.assert_array_equal(event.samples[:, LEAD - 1], event.samples[:, LEAD])


def test_lead_is_mirrored_noise_and_nothing_after_p() -> None:
    samples = np.arange(6, dtype=np.float32)[None].repeat(3, axis=0)
    led = with_lead(samples, quiet=3, lead=7)
    np.testing.assert_array_equal(led[0] + 1, [0, 0, 1, 2, 2, 1, 0, 0, 1, 2, 3, 4, 5])


def test_blocks_of_seisbench_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "waveforms.hdf5", "w") as archive:
        archive["data/bucket0"] = np.arange(2 * 3 * 400).reshape(2, 3, 400) ** 2
    row = {"trace_name": "bucket0$1,:3,:300", "trace_category": "noise", "split": "train"}
    empty = dict.fromkeys(("trace_p_arrival_sample", "trace_s_arrival_sample", "source_id", "source_dataset"))
    pd.DataFrame([{**row, **empty}]).to_csv(tmp_path / "metadata.csv", index=False)
    (record,) = read_records(tmp_path, "train")
    expected = (np.arange(2 * 3 * 400).reshape(2, 3, 400) ** 2)[1, :, :300].astype(np.float64)
    expected -= expected.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(record.samples[:, LEAD:], expected, atol=1)


def test_suspicious_noise_and_events_without_p_are_left_out(data: Path, tmp_path: Path) -> None:
    table = pd.read_csv(data / "metadata.csv")
    table["noise_suspect"] = table["trace_name"] == "trace1"
    table.loc[table["trace_name"] == "trace2", "trace_p_arrival_sample"] = np.nan
    table.to_csv(tmp_path / "metadata.csv", index=False)
    (tmp_path / "waveforms.hdf5").symlink_to(data / "waveforms.hdf5")
    names = {record.name for record in read_records(tmp_path, "train")}
    assert names == {f"trace{n}" for n in range(16)} - {"trace1", "trace2"}


def test_what_cannot_be_used_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"metadata\.csv: cannot be read"):
        read_records(tmp_path, "train")
    with pytest.raises(DataError, match=r"no usable trace of split 'test'"):
        read_records(data, "test")
    (tmp_path / "metadata.csv").write_text("trace_name,split\n")
    with pytest.raises(DataError, match="the metadata have no column source_dataset, source_id"):
        read_records(tmp_path, "train")
    table = pd.read_csv(data / "metadata.csv")
    table.assign(trace_sampling_rate_hz=50.0).to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(DataError, match="traces must have 100 Hz"):
        read_records(tmp_path, "train")
    table.to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(DataError, match=r"waveforms\.hdf5: cannot be read"):
        read_records(tmp_path, "train")


def test_event_windows_hold_p_or_s_and_noise_windows_neither(data: Path) -> None:
    records = read_records(data, "train")
    drawer = Drawer(records, np.random.default_rng(0))
    ages = []
    for _ in range(300):
        cut = drawer.event(2080)
        assert cut.samples.shape == (3, 2080)
        assert cut.onset <= 2080 - 50
        assert cut.onset > -20  # P, or S 3 s later, in the window
        ages.append(2080 - cut.onset)
        noise = drawer.noise(2080)
        assert noise.samples.shape == (3, 2080)
        assert np.abs(noise.samples).max() < 1000, "an earthquake in a noise window"
    assert np.mean(np.array(ages) <= 400) > 0.35
    assert GUARD_S == 1.0


def test_cuts_are_copies(data: Path) -> None:
    records = read_records(data, "train")
    before = records[0].samples.copy()
    drawer = Drawer(records, np.random.default_rng(0))
    for _ in range(50):
        drawer.event(2080).samples[:] = 0
    np.testing.assert_array_equal(records[0].samples, before)


def test_one_class_alone_is_refused(data: Path) -> None:
    events = [record for record in read_records(data, "train") if record.is_event]
    with pytest.raises(DataError, match="earthquakes and noise"):
        Drawer(events, np.random.default_rng(0))


@pytest.mark.shared
def test_the_real_set_is_read_and_split_by_earthquake(shared: Path) -> None:
    train, dev = read_records(shared, "train"), read_records(shared, "dev")
    assert sum(record.is_event for record in dev) == 134
    assert not {r.source_id for r in train if r.is_event} & {r.source_id for r in dev if r.is_event}
    assert all(np.isfinite(record.samples).all() for record in dev)
