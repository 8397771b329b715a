"""Where a recipe's records come from: sources of several kinds, divided by earthquake, read as one collection.

What is not here: the kinds, one module each; what makes a recording unfit (`trainer.data.quality`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field

from quake.data.seisbench import DataError
from quake.data.split import split_events
from trainer.data.catalogue import Catalogue
from trainer.data.continuous import Continuous
from trainer.data.finding import Collection, Find, Findings, LeftOut, Reason, Shares, SourceSection
from trainer.data.marks import Marks
from trainer.data.quality import Quality, collect
from trainer.data.seisbench_source import SeisBench
from trainer.data.synthetic import Synthetic

__all__ = ["Collection", "LeftOut", "Quality", "Source", "read_records", "source_names"]

Source = Annotated[SeisBench | Catalogue | Continuous | Marks | Synthetic, Field(discriminator="type")]
"""One entry of the recipe's ``[[data.source]]``."""


def read_records(
    sources: Sequence[SourceSection],
    split: str | None,
    quality: Quality,
    folder: Path,
    leave_out: Sequence[str] = (),
) -> Collection:
    """All fit recordings of one split; None: of all, also those of which the data say no split.

    ``folder``: what relative paths count from. ``leave_out``: data sets (`Record.source`) of which nothing is used.
    DataError for a split that holds nothing, a trace name that stands twice, an earthquake in two splits, a source that
    holds nothing, a data set to leave out that no source has, and a file that cannot be read.
    """
    findings = [source.find(folder) for source in sources]
    if empty := [f"data.source.{place}" for place, found in enumerate(findings) if not found.finds]:
        raise DataError(f"{', '.join(empty)}: no recording in it")
    divided = [find for found in findings for find in _divided(found)]
    _refuse_repeated_names(divided)
    _refuse_leaks(divided)
    _refuse_unknown(leave_out, divided)
    wanted = [find for find in divided if split in {None, find.split}]
    collection = collect((find for find in wanted if find.record.source not in leave_out), quality)
    aside = [find for find in wanted if find.record.source in leave_out]
    homeless = [find for find in divided if split is not None and not find.split]
    left_out = (
        *collection.left_out,
        *_listed(aside, "leave_out", "a recording of what data.leave_out names"),
        *_listed(homeless, "no_split", "the data do not say which split it is of"),
    )
    if not collection.records:
        raise DataError(_nothing(split, divided, left_out[: len(wanted)]))
    return replace(collection, left_out=left_out, hashes=_hashes(findings))


def source_names(sources: Sequence[SourceSection], folder: Path) -> frozenset[str]:
    """The data sets (`Record.source`) that the sources hold recordings of. DataError where a file cannot be read."""
    return frozenset(find.record.source for source in sources for find in source.find(folder).finds)


def _listed(finds: Iterable[Find], reason: Reason, detail: str) -> Iterable[LeftOut]:
    return (LeftOut(find.record.source, find.record.name, reason, detail) for find in finds)


def _divided(found: Findings) -> Iterable[Find]:
    if found.shares is None:
        return found.finds
    splits = _shared_out(found.finds, found.shares)
    return (find if find.split else replace(find, split=splits[at]) for at, find in enumerate(found.finds))


def _shared_out(finds: Sequence[Find], shares: Shares) -> Sequence[str]:
    """A split for each, groups whole."""
    splits = np.full(len(finds), "train", dtype=object)
    left = np.arange(len(finds))
    for name, share in (("test", shares.test), ("dev", shares.dev / (1 - shares.test))):
        if share > 0 and len(left):
            aside = _put_aside([finds[at] for at in left.tolist()], share, shares.seed)
            splits[left[aside]] = name
            left = left[~aside]
    return [str(split) for split in splits]


def _put_aside(finds: Sequence[Find], share: float, seed: int) -> np.ndarray:
    """(n,) booleans."""
    groups = [f"group {find.group}" if find.group else f"alone {find.record.name}" for find in finds]
    try:
        return split_events([find.record.kind for find in finds], groups, share, seed)
    except ValueError as error:
        raise DataError(f"{finds[0].record.source}: cannot be divided by earthquake: {error}") from error


def _refuse_repeated_names(finds: Iterable[Find]) -> None:
    seen: dict[str, str] = {}
    for record in (find.record for find in finds):
        if record.name in seen:
            raise DataError(f"trace {record.name} stands twice: in {seen[record.name]} and in {record.source}")
        seen[record.name] = record.source


def _refuse_unknown(leave_out: Iterable[str], finds: Iterable[Find]) -> None:
    known = {find.record.source for find in finds}
    if unknown := sorted(set(leave_out) - known):
        raise DataError(f"data.leave_out: no source {', '.join(unknown)}; there are {', '.join(sorted(known))}")


def _refuse_leaks(finds: Iterable[Find]) -> None:
    """What belongs to one earthquake, its noise included, is in one split."""
    homes: dict[str, Find] = {}
    for find in finds:
        if find.group and find.split:
            other = homes.setdefault(find.group, find)
            if other.split != find.split:
                places = " and ".join(f"{one.split} ({one.record.source}, {one.record.name})" for one in (other, find))
                raise DataError(f"earthquake {find.group} is in two splits: {places}")


def _nothing(split: str | None, finds: Sequence[Find], left_out: Sequence[LeftOut]) -> str:
    if left_out:
        where, first = "all splits" if split is None else f"split {split!r}", left_out[0]
        return f"{where}: all {len(left_out)} recordings are left out, the first ({first.name}) as {first.detail}"
    sources = ", ".join(sorted({find.record.source for find in finds}))
    known = ", ".join(sorted({find.split for find in finds if find.split})) or "none"
    return f"{sources}: no recording of split {split!r} (there are: {known})"


def _hashes(findings: Iterable[Findings]) -> Mapping[str, str]:
    return {name: _sha256(path) for found in findings for name, path in sorted(found.files.items())}


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
