"""What a characteriser knows, beside who knows less: back-azimuth on real windows, classes of magnitude on made ones.

    python -m benchmarks.characteriser [--model FILE] [--split dev] [--made 600] [--json characteriser.json]

Back-azimuth is held against P-wave polarisation (Flinn 1965, as ObsPy has it; its sign from Z), which is told when P
comes, and against chance: one in eight. Each record is also turned by the other seven multiples of 45 degrees, so that
who always says the same, or knows a region's earthquakes by heart, is worth chance. Magnitude is held against the
loudest sample since P, whose classes are fitted on other made earthquakes; real records count where their gain is
known. A model is asked on windows that end so many seconds after P. Intervals draw earthquakes; a head is better where
the paired difference excludes zero. Judges nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from obspy.signal.polarization import flinn
from scipy.signal import butter, sosfilt
from scipy.stats import norm

from benchmarks.skill import SHARED, read
from benchmarks.tables import Cell, Estimate, Table
from quake.artifact import CompiledModel
from quake.data.seisbench import DataError
from quake.data.spec import AZIMUTH_HEAD, MAGNITUDE_HEAD
from trainer.augmentation.waveform import turned
from trainer.data.labels import SECTOR_DEG, SECTORS, classes_of
from trainer.data.record import RATE_HZ, Record
from trainer.data.sources import Quality, read_records
from trainer.data.synthetic import Synthetic
from trainer.evaluation.bootstrap import Rows, intervals, strata_of
from trainer.evaluation.scoring import predict_moments

Shares = NDArray[np.float64]

AFTER_P_S = (2.0, 5.0, 10.0)
"""Records that end before the last of them are left out."""
BAND_HZ, BEFORE_P_S, P_S = (2.0, 30.0), 0.2, 0.3
"""Of the polarisation: the band and the seconds around P that were best on the training split."""
GAIN = {"m/s": 1.0, "nm/s": 1e9, "counts": 1e9}
"""By the unit that a model reads: what m/s are multiplied by. Counts are those of a common instrument."""
SEEDS = {"train": 101, "dev": 102}
"""Of the made earthquakes that the loudest sample is fitted on, and of those that are asked for."""
WIDE = {"magnitude": (2.0, 8.0), "distance_km": (3.0, 300.0), "depth_km": (1.0, 60.0), "stress_drop_mpa": (0.3, 30.0)}
ALL, MEAN = "all", "mean of these"
POLARISATION, LOUDEST = "polarisation", "loudest sample"


@dataclass(frozen=True, slots=True)
class Answers:
    """How right each way of answering was about each record."""

    title: str
    records: tuple[Record, ...]
    groups: Mapping[str, NDArray[np.bool_]]
    """(n,) members of each."""
    hits: Mapping[str, Shares]
    """(n,) by the way's name, 0 to 1."""
    pairs: Mapping[str, tuple[str, str]]
    """Differences by name: of the model, and of what it is held against."""

    @property
    def columns(self) -> dict[str, Shares]:
        """(n,) by name: what is averaged."""
        return {**self.hits, **{name: self.hits[a] - self.hits[b] for name, (a, b) in self.pairs.items()}}


def azimuths(records: Sequence[Record], model: CompiledModel | None) -> Answers:
    """Sectors of real records whose back-azimuth is known and that last long enough. DataError where there is none."""
    known = tuple(record for record in records if math.isfinite(record.back_azimuth_deg) and _lasts(record))
    if not known:
        raise DataError(f"no record of known back-azimuth holds {AFTER_P_S[-1]:g} s after P")
    every = [turn for record in known for turn in rotations(record)]
    truth = _sectors([record.back_azimuth_deg for record in every])
    hits = {POLARISATION: _sectors([polarised_deg(record) for record in every]) == truth}
    if model is not None:
        places = [AZIMUTH_HEAD.classes.index(name) for name in SECTORS]  # an earthquake is given: not Normal
        hits |= {
            name: chances[:, places].argmax(axis=1) == truth
            for name, chances in _asked(model, every, AZIMUTH_HEAD.name).items()
        }
    return Answers(
        "Back-azimuth, sector of 45 degrees",
        known,
        {source: np.array([r.source == source for r in known]) for source in sorted({r.source for r in known})},
        {name: right.reshape(len(known), -1).mean(axis=1) for name, right in hits.items()},  # (n x 8,) -> (n,)
        {f"{name} less {POLARISATION}": (name, POLARISATION) for name in hits if name != POLARISATION},
    )


def magnitudes(records: Sequence[Record], model: CompiledModel | None, gain: float, made: int) -> Answers:
    """Classes of earthquakes whose magnitude is known; the loudest sample learns from ``made`` ones, in ``gain`` m/s.

    DataError where there is none.
    """
    known = tuple(record for record in records if math.isfinite(record.magnitude) and _lasts(record))
    if not known:
        raise DataError(f"no record of known magnitude and gain holds {AFTER_P_S[-1]:g} s after P")
    truth, learned = classes_of(known, MAGNITUDE_HEAD), made_earthquakes(made, gain, "train")
    loudest = {f"{LOUDEST}, {s:g} s": loudest_classes(learned, known, s) for s in AFTER_P_S}
    asked = _asked(model, known, MAGNITUDE_HEAD.name) if model else {}
    said = {**loudest, **{name: chances.argmax(axis=1) for name, chances in asked.items()}}
    return Answers(
        "Magnitude, one of four classes",
        known,
        {name: truth == index for index, name in enumerate(MAGNITUDE_HEAD.classes) if (truth == index).any()},
        {name: (classes == truth).astype(np.float64) for name, classes in said.items()},
        {f"{model_s} less {loud_s}": (model_s, loud_s) for model_s, loud_s in zip(asked, loudest, strict=bool(asked))},
    )


def made_earthquakes(count: int, gain: float, split: str) -> tuple[Record, ...]:
    """``gain``: what m/s are multiplied by; ``split`` tells the seed."""
    wished = {"count": count, "noise": 0, "seed": SEEDS[split], "counts_per_m_s": gain, **WIDE}
    source = Synthetic.model_validate({"type": "synthetic", **wished})
    return read_records([source], "train", Quality(), Path()).records


def polarised_deg(record: Record) -> float:
    """Back-azimuth, degrees; NaN where a component is missing.

    Flinn's axis has two ends: where P goes up, the ground moves away from the source, and where down, towards it.
    """
    band = butter(3, BAND_HZ, "bandpass", fs=RATE_HZ, output="sos")
    moved = sosfilt(band, record.samples.astype(np.float64), axis=1)
    first = moved[:, record.p - round(BEFORE_P_S * RATE_HZ) : record.p + round(P_S * RATE_HZ)]  # (3, n)
    if not np.ptp(first, axis=1).all():
        return math.nan
    axis_deg = float(flinn(list(first))[0])
    along = np.cos(np.radians(axis_deg)) * first[1] + np.sin(np.radians(axis_deg)) * first[2]  # (n,)
    return (axis_deg + 180) % 360 if first[0] @ along > 0 else axis_deg


def loudest_classes(learned: Sequence[Record], asked: Sequence[Record], after_p_s: float) -> NDArray[np.int64]:
    """(n,) class of magnitude by the loudest sample since P: that whose normal distribution makes it likeliest.

    DataError where a class has fewer than two to learn from.
    """
    heights, classes = _loudest(learned, after_p_s), classes_of(learned, MAGNITUDE_HEAD)
    parts = [heights[classes == index] for index in range(len(MAGNITUDE_HEAD.classes))]
    if min(map(len, parts)) < 2:
        raise DataError(f"of {len(learned)} made earthquakes fewer than two are of one class")
    found = _loudest(asked, after_p_s)
    chances = np.stack([norm.logpdf(found, part.mean(), part.std()) for part in parts])  # (classes, n)
    return np.asarray(chances.argmax(axis=0), np.int64)


def rotations(record: Record) -> Iterator[Record]:
    """The record turned by every multiple of a sector, by none first."""
    for angle_deg in SECTOR_DEG * np.arange(len(SECTORS)):
        samples = turned(record.samples, math.radians(angle_deg), 1)
        yield replace(record, samples=samples, back_azimuth_deg=(record.back_azimuth_deg + angle_deg) % 360)


def table(answers: Answers) -> Table:
    """The share of right answers by group, of all records, and the mean of the groups; differences last."""
    columns = answers.columns
    members = {**answers.groups, ALL: np.ones(len(answers.records), np.bool_)}

    def statistic(rows: Rows) -> dict[str, float]:
        values: dict[str, float] = {}
        for name, column in columns.items():
            inside = {group: column[rows[of[rows]]] for group, of in members.items()}
            means = {group: float(part.mean()) for group, part in inside.items() if len(part)}
            means[MEAN] = float(np.mean([mean for group, mean in means.items() if group != ALL]))
            values |= {f"{group}\n{name}": mean for group, mean in means.items()}
        return values

    found, bounds = statistic(np.arange(len(answers.records))), intervals(statistic, strata_of(answers.records))

    def cell(key: str) -> Estimate:
        return Estimate(found[key], bounds[key].low, bounds[key].high) if key in bounds else Estimate(found[key])

    sizes: dict[str, tuple[Cell, Cell]] = {group: _sizes(answers.records, of) for group, of in members.items()}
    sizes[MEAN] = ("", "")
    rows = tuple((group, *size, *(cell(f"{group}\n{name}") for name in columns)) for group, size in sizes.items())
    return Table(answers.title, ("records", "count", "earthquakes", *columns), rows)


def tables(real: Sequence[Record], model: CompiledModel | None, made: int) -> Iterator[Table]:
    gain = GAIN[model.spec.unit if model else "m/s"]
    yield table(azimuths(real, model))
    for where, records in (("made earthquakes", made_earthquakes(made, gain, "dev")), ("real records", real)):
        try:
            answers = magnitudes(records, model, gain, made)
        except DataError as error:
            yield Table(f"Magnitude, {where}: {error}", ("records", "count"), ((ALL, 0),))
        else:
            yield table(replace(answers, title=f"{answers.title}, {where}"))


def _asked(model: CompiledModel, records: Sequence[Record], head: str) -> dict[str, NDArray[np.float32]]:
    """(n, classes of the head) by seconds after P."""
    moments = predict_moments(model, records, AFTER_P_S)
    chances = moments.probabilities[head]
    return {f"model, {s:g} s": chances[moments.after_p_s == s] for s in AFTER_P_S}


def _sectors(back_azimuths_deg: Sequence[float]) -> NDArray[np.int64]:
    """(n,) places in SECTORS; -1 where it is not known."""
    places = np.floor(np.array(back_azimuths_deg) / SECTOR_DEG + 0.5) % len(SECTORS)
    return np.asarray(np.nan_to_num(places, nan=-1), np.int64)


def _lasts(record: Record) -> bool:
    return record.is_event and record.p >= 0 and record.p + AFTER_P_S[-1] * RATE_HZ <= record.samples.shape[1]


def _loudest(records: Sequence[Record], after_p_s: float) -> Shares:
    """(n,) logarithm of the largest sample of any component since P."""
    parts = (record.samples[:, record.p : record.p + round(after_p_s * RATE_HZ)] for record in records)
    return np.asarray(np.log10([np.abs(part).max() for part in parts]))


def _sizes(records: Sequence[Record], members: NDArray[np.bool_]) -> tuple[int, int]:
    """Records and earthquakes."""
    inside = [record.source_id for record, is_member in zip(records, members, strict=True) if is_member]
    return len(inside), len(set(inside))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="without it the others are measured alone")
    parser.add_argument("--data", type=Path, default=SHARED / "data" / "windows", help="folder in SeisBench's format")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--made", type=int, default=600, help="earthquakes to make, and as many to learn from")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    model = CompiledModel.load(chosen.model, "cpu", threads=1) if chosen.model else None
    if model is not None and model.spec.unit not in GAIN:
        parser.error(f"{chosen.model}: reads {model.spec.unit}, known are {', '.join(GAIN)}")
    found = list(tables(read(chosen.data, chosen.split), model, chosen.made))
    print(f"{f'{model.spec.name} {model.spec.version}' if model else 'no model'}, {chosen.data.name}, {chosen.split}")
    print("\n".join(one.markdown() for one in found))
    if chosen.json:
        content = {"sha256": model.sha256 if model else None, "tables": [one.content() for one in found]}
        chosen.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
