"""What a characteriser is held against: exact on made motion, and worth chance where nothing is known."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import characteriser as benchmark
from benchmarks.tables import Estimate, Table
from quake.data.seisbench import DataError
from quake.data.spec import AZIMUTH_HEAD, MAGNITUDE_HEAD, ModelSpec, Stft
from trainer.data.record import Record
from trainer.data.synthetic import Synthetic

WISHED = {"type": "synthetic", "count": 12, "noise": 0, "noise_db": [-200.0, -200.0], "magnitude": [4.0, 5.0]}
P = 3000


@pytest.fixture(scope="module")
def made() -> tuple[Record, ...]:
    """Twelve earthquakes, P at P, without noise worth the name."""
    source = Synthetic.model_validate(WISHED)
    return tuple(_record(source, seed) for seed in range(12))


def _record(source: Synthetic, seed: int) -> Record:
    quake = replace(source.earthquake(np.random.default_rng(seed)), radiation={"P": 0.5, "S": 0.6})
    ground = quake.motion(np.random.default_rng(seed), {"P": P, "S": P + 800}, P + 1500)
    samples = (1e9 * ground + np.random.default_rng(seed).standard_normal(ground.shape)).astype(np.float32)
    record = Record(f"made{seed}", "made", f"quake{seed}", samples, "earthquake", p=P)
    return replace(record, magnitude=quake.magnitude, back_azimuth_deg=quake.back_azimuth_deg)


SPEC = ModelSpec(
    name="says",
    version="1.0.0",
    task="characterise",
    architecture="none",
    components=("Z", "N", "E"),
    sampling_rate_hz=100.0,
    window_samples=1056,
    stft=Stft(nperseg=64, hop=32, window="hann"),
    heads=(MAGNITUDE_HEAD, AZIMUTH_HEAD),
    training_data=(),
)


@dataclass(frozen=True)
class Says:
    """A model that answers from the samples."""

    answer: Callable[[np.ndarray], int]
    """Class of azimuth of (3, n) samples."""
    path: Path = Path("says.pt")
    spec: ModelSpec = SPEC

    def predict(self, windows: np.ndarray) -> np.ndarray:
        """(n, 3, 1056) -> (n, 13): Normal, and its azimuth."""
        chances = np.zeros((len(windows), 13), np.float32)
        chances[:, 3] = 1
        chances[np.arange(len(windows)), [4 + self.answer(window) for window in windows]] = 1
        return chances


def rows(table: Table) -> dict[str, dict[str, float]]:
    """Figures by row and column."""
    return {
        str(row[0]): {
            name: cell.value for name, cell in zip(table.columns, row, strict=True) if isinstance(cell, Estimate)
        }
        for row in table.rows
    }


def apart_deg(one: float, other: float) -> float:
    return abs((one - other + 180) % 360 - 180)


def test_polarisation_tells_where_clean_p_comes_from(made: Sequence[Record]) -> None:
    for record in made:
        turned = list(benchmark.rotations(record))
        assert [round(one.back_azimuth_deg - record.back_azimuth_deg) % 360 for one in turned] == list(
            range(0, 360, 45)
        )
        assert max(apart_deg(benchmark.polarised_deg(one), one.back_azimuth_deg) for one in turned) < 12


def test_polarisation_needs_three_components(made: Sequence[Record]) -> None:
    samples = made[0].samples.copy()
    samples[2] = 0
    assert math.isnan(benchmark.polarised_deg(replace(made[0], samples=samples)))


def test_who_always_says_the_same_is_worth_chance(made: Sequence[Record]) -> None:
    answers = benchmark.azimuths(made, Says(lambda window: AZIMUTH_HEAD.classes.index("NE")))  # type: ignore[arg-type]
    figures = rows(benchmark.table(answers))["all"]
    assert figures["model, 2 s"] == pytest.approx(1 / 8)
    assert figures["polarisation"] > 0.7
    assert figures["model, 2 s less polarisation"] == pytest.approx(1 / 8 - figures["polarisation"])


def test_a_model_that_hears_the_direction_is_right(made: Sequence[Record]) -> None:
    def hears(window: np.ndarray) -> int:
        first = window[:, 856:880]  # P is 200 samples before the end
        deg = math.degrees(math.atan2(-first[0] @ first[2], -first[0] @ first[1]))
        return AZIMUTH_HEAD.classes.index(("N", "NE", "E", "SE", "S", "SW", "W", "NW")[round(deg / 45) % 8])

    figures = rows(benchmark.table(benchmark.azimuths(made, Says(hears))))["made"]  # type: ignore[arg-type]
    assert figures["model, 2 s"] > 0.8
    assert figures["model, 10 s"] < 0.5  # nothing of P is where it listens


def test_figures_are_of_groups_and_of_all() -> None:
    records = tuple(Record(str(i), "a", str(i), np.zeros((3, 0), np.float32), "earthquake") for i in range(4))
    groups = {"few": np.array([True, False, False, False]), "many": np.array([False, True, True, True])}
    hits = {"one": np.array([1.0, 0, 0, 1]), "two": np.array([0.0, 0, 0, 1])}
    answers = benchmark.Answers("title", records, groups, hits, {"less": ("one", "two")})
    table = benchmark.table(answers)
    found = rows(table)
    assert [row[:3] for row in table.rows] == [("few", 1, 1), ("many", 3, 3), ("all", 4, 4), ("mean of these", "", "")]
    assert found["all"] == {"one": 0.5, "two": 0.25, "less": 0.25}
    assert found["mean of these"]["one"] == pytest.approx(2 / 3)


def test_the_loudest_sample_tells_magnitudes_that_are_apart(made: Sequence[Record]) -> None:
    def at(magnitude: float, number: int) -> Record:
        record = made[number]
        scale = 10 ** (magnitude - 4.5) * np.float32(100 / np.abs(record.samples[:, P:]).max())
        return replace(record, samples=record.samples * scale, magnitude=magnitude)

    learned = [at(magnitude, number) for magnitude in (3.0, 3.2, 4.4, 4.6, 5.4, 5.6, 6.8, 7.0) for number in range(6)]
    asked = [at(magnitude, number) for magnitude in (3.1, 4.5, 5.5, 6.9) for number in range(6, 12)]
    classes = benchmark.loudest_classes(learned, asked, 5.0)
    assert np.mean(classes == np.repeat([3, 2, 1, 0], 6)) > 0.9


def test_too_few_to_learn_from_are_refused(made: Sequence[Record]) -> None:
    with pytest.raises(DataError, match="of 12 made earthquakes fewer than two are of one class"):
        benchmark.loudest_classes(made, made, 5.0)


def test_magnitudes_of_made_earthquakes_and_none_of_real_ones(made: Sequence[Record]) -> None:
    unknown = [replace(record, magnitude=float("nan")) for record in made]
    _, magnitudes, real = benchmark.tables(unknown, None, made=60)
    assert {"Large", "Normal", "all"} <= set(rows(magnitudes))
    assert rows(magnitudes)["all"]["loudest sample, 5 s"] > 0.4
    assert "no record of known magnitude and gain" in real.title


def test_records_without_a_direction_are_refused(made: Sequence[Record]) -> None:
    with pytest.raises(DataError, match="no record of known back-azimuth"):
        benchmark.azimuths([replace(made[0], back_azimuth_deg=float("nan"))], None)
