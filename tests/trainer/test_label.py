"""``quake-trainer label`` from miniSEED to a data set, with pickers made here: Z at 100 is a P, N at 100 is an S."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from obspy import Stream, Trace, UTCDateTime
from torch import nn

from quake.backends.torchscript import quiet
from quake.data.seisbench import DataError, SeisBenchDataset
from trainer.cli import main
from trainer.data.quality import Quality
from trainer.data.record import BY_PICKERS, Record
from trainer.data.seisbench_source import SeisBench
from trainer.data.sources import read_records
from trainer.label import Task, label
from trainer.section import RecipeError

T0 = UTCDateTime("2026-03-01T00:00:00")
P_S, S_S = 100.0, 103.0
TOML = """
network = "{name}.pt"
sampling_rate_hz = 100
window_samples = 600
components = "ZNE"

[normalisation]
demean = false
scale = "none"

[output]
layout = "class_time"
classes = ["P", "S"]
earthquake = ["P"]
"""


class Above(nn.Module):
    """Sure of P, and of S, where Z, and N, are above a height."""

    def __init__(self, height: float) -> None:
        super().__init__()
        self.height = height

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x[:, :2] > self.height).float()


@pytest.fixture(scope="module")
def pickers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("pickers")
    for name, height in (("low", 50.0), ("high", 60.0)):
        with quiet():
            torch.jit.script(Above(height)).save(str(folder / f"{name}.pt"))
        (folder / f"{name}.toml").write_text(TOML.format(name=name))
    return folder / "low.toml", folder / "high.toml"


def write(
    path: Path, station: str = "AAA", rate_hz: float = 100.0, seconds: float = 300.0, **changes: Any
) -> np.ndarray:
    """Noise with an earthquake -> (3, N) Z N E."""
    samples = np.random.default_rng(0).normal(0, 3, (3, round(seconds * rate_hz)))
    for row, time_s in ((0, P_S), (1, S_S)):
        at = round(time_s * rate_hz)
        samples[row, at : at + round(0.1 * rate_hz)] = 100 * changes.get("strength", 1)
    samples = samples.round().astype(np.int32) + changes.get("offset", 0)
    header = {"network": "XX", "station": station, "starttime": changes.get("start", T0), "sampling_rate": rate_hz}
    codes = changes.get("codes", "ZNE")
    path.parent.mkdir(exist_ok=True)
    Stream([Trace(row, {**header, "channel": f"HH{c}"}) for row, c in zip(samples, codes, strict=False)]).write(
        str(path), format="MSEED"
    )
    return samples


def labelled(folder: Path, pickers: tuple[Path, ...], **wishes: Any) -> pd.DataFrame:
    """The metadata of what is found in ``folder / hours``."""
    label(Task(folder / "hours", pickers, folder / "set", **wishes))
    return pd.read_csv(folder / "set" / "metadata.csv", keep_default_na=False)


def seconds(table: pd.DataFrame) -> list[tuple[str, float, float]]:
    """Category, first second and length of each record."""
    starts = [UTCDateTime(time) - T0 for time in table["trace_start_time"]]
    kinds = [text.split("_")[0] for text in table["trace_category"]]
    return [(k, round(s, 2), n / 100) for k, s, n in zip(kinds, starts, table["trace_npts"], strict=True)]


def records(folder: Path) -> tuple[Record, ...]:
    return read_records([SeisBench(type="seisbench", path=folder)], "train", Quality(), Path("/")).records


QUIET = [("noise", 0.0, 97.05), ("noise", 133.05, 150.0)]
EVENT = [("earthquake", 55.0, 90.0)]


def test_an_earthquake_and_the_noise_around_it(tmp_path: Path, pickers: tuple[Path, Path]) -> None:
    samples = write(tmp_path / "hours" / "a.mseed", offset=5000)
    table = labelled(tmp_path, pickers, name="mine", licence="CC0-1.0")
    assert seconds(table) == EVENT + QUIET
    event, noise, _ = records(tmp_path / "set")
    assert (event.kind, event.source, event.licence, event.is_crowded) == ("earthquake", "mine", "CC0-1.0", False)
    assert (event.p - 60 * 100, event.s - 60 * 100) == (4502, 4802)
    assert (event.origin, noise.origin) == (BY_PICKERS, f"continuous_quiet {BY_PICKERS}")
    (trace, *_) = SeisBenchDataset(tmp_path / "set")
    cut = samples[:, 5500:14500]
    assert trace.samples == pytest.approx(cut - samples.mean(axis=1, keepdims=True), abs=1e-3)
    row = table.iloc[0]
    assert row["trace_name"] == row["source_id"] == "mine.XX.AAA..HH.20260301T000055.000000.earthquake_local"
    assert (row["trace_horizontals"], row["trace_channels"], row["trace_p_status"]) == ("NE", "HHE HHN HHZ", "teacher")
    assert set(table["split"]) == {"train"}
    hashes = [hashlib.sha256((path.with_suffix(".pt")).read_bytes()).hexdigest() for path in pickers]
    assert row["remark"] == f"labelled by low.pt (sha256 {hashes[0]}), high.pt (sha256 {hashes[1]})"


def test_other_rates_and_horizontals_of_unknown_direction(tmp_path: Path, pickers: tuple[Path, Path]) -> None:
    write(tmp_path / "hours" / "a.mseed", rate_hz=125.0, codes="Z12")
    table = labelled(tmp_path, pickers)
    assert seconds(table)[0] == ("earthquake", 55.0, 90.0)
    assert (str(table["trace_horizontals"][0]), table["source_dataset"][0]) == ("12", "hours")
    assert float(table["trace_original_sampling_rate_hz"][0]) == 125
    assert np.isnan(records(tmp_path / "set")[0].back_azimuth_deg)


def test_pickers_that_do_not_agree(tmp_path: Path, pickers: tuple[Path, Path]) -> None:
    write(tmp_path / "hours" / "a.mseed", strength=0.55)
    assert seconds(labelled(tmp_path, pickers)) == QUIET


@pytest.mark.parametrize("pattern", ["XX.AAA", "XX.*", "a.ms*"])
def test_where_nothing_is_an_earthquake(tmp_path: Path, pickers: tuple[Path, Path], pattern: str) -> None:
    write(tmp_path / "hours" / "a.mseed")
    table = labelled(tmp_path, pickers, only_noise=(pattern,))
    assert seconds(table) == [("noise", 0.0, 95.05), ("noise", 149.95, 150.0)]
    assert set(table["noise_origin"]) == {f"ambient_survey {BY_PICKERS}"}


def taken(folder: Path, station: str, begin_s: float, split: str = "dev", name: str = "taken.csv") -> Path:
    """The table of one trace of 10 s."""
    path = folder / name
    start = T0 + begin_s if np.isfinite(begin_s) else ""
    rows = {"station_code": station, "trace_start_time": str(start), "trace_npts": 1000, "split": split}
    pd.DataFrame([{"trace_name": "one", **rows}]).to_csv(path, index=False)
    return path


@pytest.mark.parametrize(
    ("begin_s", "expected"),
    [
        (200.0, [*EVENT, QUIET[0], ("noise", 133.05, 61.95), ("noise", 215.05, 84.95)]),
        (149.0, [*QUIET[:1], ("noise", 164.05, 135.95)]),
        (1000.0, EVENT + QUIET),
    ],
)
def test_times_that_are_taken_and_five_seconds_around(
    tmp_path: Path, pickers: tuple[Path, Path], begin_s: float, expected: list[Any]
) -> None:
    write(tmp_path / "hours" / "a.mseed")
    assert seconds(labelled(tmp_path, pickers, exclude=(taken(tmp_path, "AAA", begin_s),))) == expected


def test_only_the_station_and_the_splits_that_are_named_are_taken(tmp_path: Path, pickers: tuple[Path, Path]) -> None:
    write(tmp_path / "hours" / "a.mseed")
    both = (taken(tmp_path, "AAA", 200, "test", "1.csv"), taken(tmp_path, "BBB", 200, "dev", "2.csv"))
    with pytest.raises(DataError, match=r"1\.csv: no trace of split dev \(there are: test\)"):
        labelled(tmp_path, pickers, exclude=both)
    tables = [pd.read_csv(path) for path in both]
    pd.concat(tables).to_csv(tmp_path / "both.csv", index=False)
    assert seconds(labelled(tmp_path, pickers, exclude=(tmp_path / "both.csv",))) == EVENT + QUIET


def test_a_file_of_noise_with_a_time_that_is_taken_is_not_used_at_all(
    tmp_path: Path, pickers: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with_gap = Stream()
    for start in (T0, T0 + 400):
        write(tmp_path / "hours" / "a.mseed", start=start)
        with_gap += Stream(read_all(tmp_path / "hours" / "a.mseed"))
    with_gap.write(str(tmp_path / "hours" / "a.mseed"), format="MSEED")
    write(tmp_path / "hours" / "b.mseed", start=T0 + 5000)
    wishes = {"only_noise": ("XX.AAA",), "exclude": (taken(tmp_path, "AAA", 650),)}
    assert {start >= 5000 for _, start, _ in seconds(labelled(tmp_path, pickers, **wishes))} == {True}
    assert "a.mseed: not used: times of --exclude are in it" in caplog.text
    assert re.search(r"XX\.AAA\.\.HH: 0 earthquakes, 0\.07 h of noise", caplog.text)


def read_all(path: Path) -> list[Trace]:
    from trainer.data.waveforms import read_waveforms

    return list(read_waveforms(path))


def test_traces_without_a_time_are_told_of(
    tmp_path: Path, pickers: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "hours" / "a.mseed")
    labelled(tmp_path, pickers, exclude=(taken(tmp_path, "AAA", np.nan),))
    assert "1 traces of --exclude do not say when they are" in caplog.text


def test_a_table_says_whose_the_files_are(tmp_path: Path, pickers: tuple[Path, Path]) -> None:
    write(tmp_path / "hours" / "a.mseed")
    write(tmp_path / "hours" / "b.mseed", station="BBB")
    table = tmp_path / "sources.csv"
    table.write_text("file,source_dataset,licence\na.mseed,one,MIT\nb.mseed,two,\n")
    found = labelled(tmp_path, pickers, sources=table)
    by_station = found.groupby("station_code")[["source_dataset", "licence"]].first().to_numpy().tolist()
    assert by_station == [["one", "MIT"], ["two", "not stated"]]


def test_what_is_not_whole_is_left_out_and_told_of(
    tmp_path: Path, pickers: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "hours" / "a.mseed")
    broken = np.zeros(3000, np.float32)
    broken[7] = np.nan
    trace = Trace(broken, {"network": "XX", "station": "BAD", "channel": "HHZ", "sampling_rate": 100.0})
    trace.write(str(tmp_path / "hours" / "b.mseed"), format="MSEED")
    assert set(labelled(tmp_path, pickers)["station_code"]) == {"AAA"}
    assert "XX.BAD..HH from 1970-01-01T00:00:00.000000Z: not used: not_finite: 1 of 9000" in caplog.text


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,licence\na.mseed,MIT\n", r"no column source_dataset"),
        ("file,source_dataset,licence\nz.mseed,one,MIT\n", r"no row for a\.mseed"),
        ("file,source_dataset,licence\na.mseed,one,MIT\na.mseed,two,MIT\n", r"a\.mseed stands twice"),
        ("file,source_dataset,licence\na.mseed,,MIT\n", r"a\.mseed: no source_dataset"),
        (
            "file,source_dataset,licence\na.mseed,one,MIT\nb.mseed,two,MIT\n",
            r"a\.mseed and b\.mseed continue each other",
        ),
    ],
)
def test_wrong_tables_of_sources(tmp_path: Path, pickers: tuple[Path, Path], table: str, message: str) -> None:
    write(tmp_path / "hours" / "a.mseed")
    write(tmp_path / "hours" / "b.mseed", start=T0 + 300)
    path = tmp_path / "sources.csv"
    path.write_text(table)
    with pytest.raises(DataError, match=rf"sources\.csv: {message}"):
        labelled(tmp_path, pickers, sources=path)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("trace_npts", "many", r"taken\.csv: trace one: could not convert"),
        ("trace_npts", "0", r"taken\.csv: trace one: trace_npts 0 is no length"),
        ("trace_start_time", "noon", r"taken\.csv: trace one: trace_start_time noon is no time"),
        ("station_code", None, r"taken\.csv: no column station_code"),
    ],
)
def test_wrong_tables_of_times(
    tmp_path: Path, pickers: tuple[Path, Path], column: str, value: str | None, message: str
) -> None:
    write(tmp_path / "hours" / "a.mseed")
    path = taken(tmp_path, "AAA", 10)
    table = pd.read_csv(path)
    (table.drop(columns=column) if value is None else table.assign(**{column: value})).to_csv(path, index=False)
    with pytest.raises(DataError, match=message):
        labelled(tmp_path, pickers, exclude=(path,))


def test_wishes_that_cannot_be_met(tmp_path: Path, pickers: tuple[Path, Path]) -> None:
    write(tmp_path / "hours" / "a.mseed")
    with pytest.raises(RecipeError, match="two pickers agree on: --picker is needed twice"):
        labelled(tmp_path, pickers[:1])
    with pytest.raises(RecipeError, match="a network that is named twice agrees with itself"):
        labelled(tmp_path, (*pickers, pickers[0]))
    with pytest.raises(RecipeError, match=r"--only-noise YY\.\*: neither a file nor a station"):
        labelled(tmp_path, pickers, only_noise=("XX.*", "YY.*"))
    deaf = pickers[0].with_name("deaf.toml")
    deaf.write_text(pickers[0].read_text().replace('["P"', '["p"').replace('= ["P"]', '= ["p"]'))
    with pytest.raises(RecipeError, match=r"deaf\.toml: output: a picker that labels has a class named P"):
        labelled(tmp_path, (pickers[0], deaf))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "old").touch()
    with pytest.raises(RecipeError, match=r"set: is not empty"):
        labelled(tmp_path, pickers)


def test_a_set_without_anything_in_it_is_none(tmp_path: Path, pickers: tuple[Path, Path]) -> None:
    write(tmp_path / "hours" / "a.mseed", seconds=25)
    with pytest.raises(DataError, match="hours: neither an earthquake nor noise is found in it"):
        labelled(tmp_path, pickers)
    assert not (tmp_path / "set" / "metadata.csv").exists()


def test_the_command(tmp_path: Path, pickers: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / "hours" / "a.mseed")
    command = ["label", str(tmp_path / "hours"), "--picker", str(pickers[0]), "--out", str(tmp_path / "set")]
    assert main(command) == 2
    assert "--picker is needed twice" in capsys.readouterr().err
    exclude = ["--exclude", str(taken(tmp_path, "AAA", 5000, "test")), "--exclude-split", "test"]
    assert main([*command, "--picker", str(pickers[1]), "--only-noise", "XX.*", "--name", "town", *exclude]) == 0
    table = pd.read_csv(tmp_path / "set" / "metadata.csv")
    assert set(table["source_dataset"]) == {"town"}
