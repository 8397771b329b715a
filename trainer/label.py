"""``quake-trainer label``: a data set of earthquakes and noise out of continuous recordings, labelled by pickers.

What is labelled is to learn from: no truth to measure a detector by. What is not here: what counts as an earthquake or
as noise (`trainer.distillation.labelling`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from obspy import UTCDateTime

from quake.data.seisbench import DataError
from trainer.data.finding import Unusable, at_common_rate
from trainer.data.hours import Provenance, Taken, read_provenance, read_taken
from trainer.data.quality import not_finite
from trainer.data.record import BY_PICKERS, RATE_HZ
from trainer.data.seisbench_source import TEACHER
from trainer.data.seisbench_writing import SeisBenchWriter
from trainer.data.waveforms import Archive, Cut, Sensor, Span, chunks, compact, waveform_files
from trainer.distillation.labelling import STEPS_HZ, Flags, Part, Said, ambient, earthquakes, listen, quiet
from trainer.distillation.picker import Picker
from trainer.section import RecipeError

LONGEST_S = 86400.0
"""Labelled at once, as memory has it: of earthquakes within 45 s of a seam there is no record."""
Row = Mapping[str, Any]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be labelled, by what, and what of it not."""

    folder: Path
    """Of miniSEED files, or one file."""
    pickers: tuple[Path, ...]
    """Adapter files; the P of the first are those that others must agree with."""
    out: Path
    """Folder of the data set."""
    only_noise: tuple[str, ...] = ()
    """Patterns of file names or of network.station: nothing there is an earthquake."""
    exclude: tuple[Path, ...] = ()
    """Metadata of data sets whose times are not used."""
    exclude_splits: tuple[str, ...] = ("dev",)
    """Of those."""
    sources: Path | None = None
    """CSV: file, source_dataset, licence."""
    name: str = ""
    """The data set without that table; the folder's name if empty."""
    licence: str = "not stated"
    device: str = "auto"
    threads: int = 1


@dataclass(frozen=True, slots=True)
class _Stretch:
    """A time without gaps at one sensor."""

    sensor: Sensor
    span: Span
    files: tuple[Path, ...]
    of: Provenance
    only_noise: bool


def label(task: Task) -> None:
    """Write the data set. RecipeError for wrong wishes; DataError and ModelError for files that cannot be used."""
    torch.set_num_threads(task.threads)
    pickers = _load(task)
    archive = Archive.of_files(waveform_files(task.folder))
    taken = read_taken(task.exclude, task.exclude_splits)
    if taken.undated:
        log.warning("%d traces of --exclude do not say when they are: they may be in the set", taken.undated)
    stretches = list(_stretches(task, archive, max(picker.samples for picker in pickers) / RATE_HZ))
    _claim(task.out)
    with SeisBenchWriter(task.out) as writer:
        for sensor, own in groupby(_without_spoiled(stretches, taken), lambda stretch: stretch.sensor):
            rows = [row for stretch in own for row in _labelled(stretch, archive, pickers, taken, writer)]
            log.info("%s: %s", sensor, _said(rows))
        if not writer.rows:
            raise DataError(f"{task.folder}: neither an earthquake nor noise is found in it")


def _load(task: Task) -> Sequence[Picker]:
    if len(task.pickers) < 2:
        raise RecipeError("an earthquake is what two pickers agree on: --picker is needed twice at least")
    try:
        pickers = [Picker.load(path, None, task.device) for path in task.pickers]
    except ValueError as error:  # no CUDA
        raise RecipeError(f"--device {task.device}: {error}") from error
    for path, picker in zip(task.pickers, pickers, strict=True):
        if picker.output.layout == "class" or "P" not in picker.output.classes:
            raise RecipeError(f"{path}: output: a picker that labels has a class named P, along time")
    if len({picker.sha256 for picker in pickers}) < len(pickers):
        raise RecipeError("--picker: a network that is named twice agrees with itself")
    return pickers


def _stretches(task: Task, archive: Archive, shortest_s: float) -> Iterator[_Stretch]:
    """Of the archive, none shorter than ``shortest_s``."""
    table = read_provenance(task.sources) if task.sources else None
    default = Provenance(task.name or task.folder.stem, task.licence)
    unused = set(task.only_noise)
    for sensor in archive.sensors:
        for span in archive.spans(sensor):
            files = tuple(archive.files(sensor, span))
            names = {f"{sensor.network}.{sensor.station}", *(path.name for path in files)}
            patterns = {one for one in task.only_noise if any(fnmatchcase(name, one) for name in names)}
            unused -= patterns
            of = _provenance(files, table, task) if table is not None else default
            for part in chunks(span, LONGEST_S, shortest_s):
                yield _Stretch(sensor, part, files, of, bool(patterns))
    if unused:
        raise RecipeError(f"--only-noise {min(unused)}: neither a file nor a station is called so")


def _provenance(files: Sequence[Path], table: Mapping[str, Provenance], task: Task) -> Provenance:
    """DataError for a file that the table lacks, and for a stretch of two data sets."""
    for path in files:
        if path.name not in table:
            raise DataError(f"{task.sources}: no row for {path.name}")
    found = {table[path.name] for path in files}
    if len(found) > 1:
        raise DataError(f"{task.sources}: {files[0].name} and {files[-1].name} continue each other, as two data sets")
    return found.pop()


def _without_spoiled(stretches: Iterable[_Stretch], taken: Taken) -> Iterator[_Stretch]:
    """Without files of noise alone in which times are taken: the rest of them is the same site on the same day."""
    held = list(stretches)
    hit = (one for one in held if one.only_noise and taken.within(one.sensor.station, one.span))
    spoiled = {path for one in hit for path in one.files}
    for path in sorted(spoiled):
        log.info("%s: not used: times of --exclude are in it", path.name)
    return (one for one in held if not spoiled.intersection(one.files))


def _labelled(
    stretch: _Stretch, archive: Archive, pickers: Sequence[Picker], taken: Taken, writer: SeisBenchWriter
) -> Iterator[Row]:
    """Rows of what is written of one stretch; nothing, and a line in the log, where its samples are not whole."""
    try:
        cut = archive.cut(stretch.sensor, stretch.span)
        if fault := not_finite(cut.raw):
            raise Unusable("not_finite", fault)
        samples = at_common_rate(cut.raw)  # (3, N)
    except Unusable as fault:
        log.warning("%s from %s: not used: %s", stretch.sensor, stretch.span.start, fault)
        return
    said = [listen(picker, picker.output.pick_threshold, samples) for picker in pickers]
    usable = _usable(len(said[0].p), cut.start, taken.within(stretch.sensor.station, stretch.span))
    known = _known(stretch, cut, pickers)
    for (begin, end), meant in _records(said, usable, stretch.only_noise):
        time = cut.start + begin / RATE_HZ
        name = f"{stretch.of.source}.{stretch.sensor}.{compact(time)}.{meant['trace_category']}"
        source_id = name if "trace_p_status" in meant else ""
        row = {"trace_start_time": str(time), **meant, "source_id": source_id, **known}
        writer.add(name, samples[:, begin:end], row)
        yield {**row, "trace_npts": end - begin}


def _usable(steps: int, start: UTCDateTime, taken: Iterable[Span]) -> Flags:
    """(steps,)."""
    usable = np.ones(steps, bool)
    for span in taken:
        usable[max(int((span.start - start) * STEPS_HZ), 0) : max(int((span.end - start) * STEPS_HZ) + 1, 0)] = False
    return usable


def _records(said: Sequence[Said], usable: Flags, only_noise: bool) -> Iterator[tuple[Part, Row]]:
    """Parts of a recording, and the columns that say what each is."""
    for event in [] if only_noise else earthquakes(said, usable):
        begin = event.part[0]
        yield (
            event.part,
            {
                "trace_category": "earthquake_local",
                "trace_p_arrival_sample": event.p - begin,
                "trace_s_arrival_sample": event.s - begin if event.s >= 0 else np.nan,
                "trace_p_status": TEACHER,
                "multi_event": event.is_crowded,
            },
        )
    origin = f"{'ambient_survey' if only_noise else 'continuous_quiet'} {BY_PICKERS}"
    for part in (ambient if only_noise else quiet)(said, usable):
        yield part, {"trace_category": "noise", "noise_origin": origin, "multi_event": False}


def _known(stretch: _Stretch, cut: Cut, pickers: Sequence[Picker]) -> Row:
    """Columns of all its records."""
    named = (f"{picker.path.name} (sha256 {picker.sha256})" for picker in pickers)
    return {
        "trace_original_sampling_rate_hz": cut.raw.rate_hz,
        "trace_channels": " ".join(cut.channels),
        "trace_horizontals": "".join(sorted({code[-1] for code in cut.channels} & set("NE12"), key="NE12".index)),
        "station_network_code": stretch.sensor.network,
        "station_code": stretch.sensor.station,
        "station_location_code": stretch.sensor.location,
        "split": "train",
        "source_dataset": stretch.of.source,
        "licence": stretch.of.licence,
        "remark": f"labelled by {', '.join(named)}",
    }


def _said(rows: Sequence[Row]) -> str:
    noise = [row["trace_npts"] for row in rows if row["trace_category"] == "noise"]
    return f"{len(rows) - len(noise)} earthquakes, {sum(noise) / RATE_HZ / 3600:.2f} h of noise"


def _claim(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RecipeError(f"{out}: is not empty")
    out.mkdir(parents=True, exist_ok=True)
