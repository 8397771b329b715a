"""Which record comes next, and which part of it.

`Drawer` draws records so that the recipe's `Sampling` holds, and cuts windows as its `Windows` say. It has no state:
item number i of a run is drawn from i and a generator of i's own, so items depend neither on each other nor on who
draws them. What is not here: what is done to a window (`trainer.augmentation`), and batches (`trainer.data.loading`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from quake.data.seisbench import DataError
from quake.data.spec import Head
from trainer.data.labels import UNKNOWN_CLASS, class_counts, classes_of
from trainer.data.record import BY_PICKERS, GUARD_S, RATE_HZ, Example, Record, Samples
from trainer.section import RecipeError, Section, Share

Rng = np.random.Generator
Told = Callable[[str], None]
NotNegative = Annotated[float, Field(ge=0)]

MIN_AGE_S = 0.5
"""By default no window ends closer to P than this: neither answer would be fair."""
FRESH_S = 4.0
"""Early warning lives on the first seconds: about half of the windows end within these after P."""
OLDEST_S = 20.0
CODA_S = 11.0
"""Seconds after S from which on an earthquake is over for an alarm: what stands that long tells nobody of the next one."""
CODA_LASTS_S = 20.0
"""Later it is the site's noise again, which others have."""
S_AFTER_P_S = 7.0
"""Where S is not known: nine in ten of the records at hand that have both have it earlier."""
GUARD = round(GUARD_S * RATE_HZ)


class Age(Section):
    """Windows of earthquakes that end some time after a phase, each time as likely as any other."""

    phase: Literal["P", "S"]
    from_s: float = Field(gt=0, description="seconds from the phase to the window's end, at least")
    to_s: float = Field(gt=0, description="and at most; a record that ends before ends the window")
    share: Share = Field(description="of the windows of earthquakes; all shares make one")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.to_s <= self.from_s:
            raise ValueError(f"to_s {self.to_s:g} is not above from_s {self.from_s:g}")
        return self


class Windows(Section):
    """The recipe's table ``[windows]``: where windows are cut. Where S is not known, the next entry of P is taken."""

    ages: tuple[Age, ...] = Field(
        default=(
            Age(phase="S", from_s=1.0, to_s=17.0, share=0.15),
            Age(phase="P", from_s=MIN_AGE_S, to_s=FRESH_S, share=0.45),
            Age(phase="P", from_s=FRESH_S, to_s=OLDEST_S, share=0.4),
        ),
        description="where windows of earthquakes end",
    )
    before_p_share: Share = Field(
        default=0.3,
        description="of the windows of noise, cut from before P of event records: the same stations, the same lead",
    )
    coda_share: Share = Field(
        default=0.0,
        description=f"of the windows of noise, cut from {CODA_S:g} s after S on: they teach an onset rather than an"
        " earthquake, so an alarm ends before the next earthquake begins",
    )
    silence_share: Share = Field(default=0.015, description="of the windows of noise, all zeros: a dead station")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        total = sum(age.share for age in self.ages)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of ages make {total:g}, not 1")
        if all(age.phase == "S" or not age.share for age in self.ages):
            raise ValueError("ages has no entry of P: S is not known everywhere")
        return self

    def require(self, window_samples: int) -> None:
        """RecipeError where an entry of ages would leave its phase outside of the network's window."""
        for age in self.ages:
            if age.to_s * RATE_HZ > window_samples:
                held = f"the window holds {window_samples / RATE_HZ:g} s"
                raise RecipeError(f"windows.ages: to_s {age.to_s:g} of {age.phase} is too much: {held}")


class Sampling(Section):
    """The recipe's table ``[sampling]``: how often each record is drawn."""

    how: Literal["balanced", "weighted", "natural"] = Field(
        default="balanced",
        description="balanced: the classes of one head in turn (a record whose class is not known is never drawn);"
        " weighted: by class_weights; natural: every record alike, but for its source's weight",
    )
    head: str | None = Field(default=None, description="whose classes are meant; by default the network's first")
    class_weights: Mapping[str, NotNegative] = Field(
        default={}, description="of weighted: how often a record is drawn, by class; 1 where nothing is said"
    )
    source_power: Share = Field(
        default=0.5,
        description="a source's share goes with its size to this power, that large ones do not drown small;"
        " of balanced and weighted",
    )
    unlabelled_share: Share = Field(default=0.0, description="of all items, from records without a label")

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if (self.how == "weighted") != bool(self.class_weights):
            raise ValueError("class_weights and how = 'weighted' go together")
        return self

    def head_of(self, heads: Sequence[Head]) -> Head:
        """RecipeError where the network has no head of that name, or the head no class that is given a weight."""
        found = [head for head in heads if self.head in (None, head.name)]
        if not found:
            raise RecipeError(f"sampling.head: no head {self.head!r} (known: {', '.join(h.name for h in heads)})")
        if strange := set(self.class_weights) - set(found[0].classes):
            known = ", ".join(found[0].classes)
            raise RecipeError(f"sampling.class_weights: no class {', '.join(sorted(strange))} (known: {known})")
        return found[0]


@dataclass(frozen=True, slots=True)
class Group:
    """Records to draw from."""

    what: str
    """Name of the group, for errors."""
    records: Sequence[Record]
    cumulative: NDArray[np.float64]
    """(records,) probability of each and of all before it."""

    @classmethod
    def of(cls, what: str, records: Sequence[Record], power: float, factors: ArrayLike = 1.0) -> Group:
        """A source's share goes with its size to ``power``, its weight and the ``factors`` of its records."""
        sizes = Counter(record.source for record in records)
        weights = np.array([record.weight * sizes[record.source] ** (power - 1) for record in records])
        cumulative = np.cumsum(weights * np.asarray(factors))
        if not records or cumulative[-1] <= 0:
            return cls(what, (), np.empty(0))
        return cls(what, records, cumulative / cumulative[-1])

    def draw(self, rng: Rng) -> Record:
        """DataError where there is none."""
        if not self.records:
            raise DataError(f"there is no record of {self.what} to draw")
        return self.records[int(np.searchsorted(self.cumulative, rng.random(), side="right"))]


@dataclass(frozen=True, slots=True)
class Drawer:
    """Draws records and cuts windows out of them: the items of a run, and `trainer.data.record.Material`."""

    windows: Windows
    turns: tuple[Group, ...]
    """Item number i draws from turn i of these, round and round."""
    events: Group
    noises: Group
    quiet: Group
    """Events with enough before P, and no other earthquake in it."""
    codas: Group
    """Events with a coda, in which people who looked have seen no other earthquake."""
    unlabelled: Group
    unlabelled_share: float = 0.0
    told: Told | None = None
    """Is told the name of each record that is cut."""

    @classmethod
    def of(
        cls,
        records: Sequence[Record],
        windows: Windows,
        sampling: Sampling,
        heads: Sequence[Head],
        absent_classes: Mapping[str, Sequence[str]] | None = None,
    ) -> Drawer:
        """What training draws from. DataError where a class has no members, RecipeError where a name is wrong."""
        head = sampling.head_of(heads)
        share = sampling.unlabelled_share
        if share < 1:
            class_counts(records, heads, absent_classes or {})
        turns = _turns([record for record in records if record.kind != "unlabelled"], sampling, head)
        drawer = _by_kind(records, windows, turns, sampling.source_power)
        if share and not drawer.unlabelled.records:
            raise DataError(f"sampling.unlabelled_share is {share:g}, and there is no record without a label")
        return replace(drawer, unlabelled_share=share)

    @classmethod
    def in_turn(cls, records: Sequence[Record], windows: Windows, seed: int) -> Drawer:
        """Every record once before any comes again, in an order drawn from ``seed``: what validation draws from."""
        order = np.random.default_rng(seed).permutation(len(records))
        turns = tuple(Group.of(records[place].name, [records[place]], 1.0) for place in order)
        plain = windows.model_copy(update={"before_p_share": 0.0, "coda_share": 0.0, "silence_share": 0.0})
        return _by_kind(records, plain, turns, 1.0)

    def telling(self, told: Told) -> Drawer:
        """The same; ``told`` is told the name of each record that is cut."""
        return replace(self, told=told)

    def require(self, length: int) -> None:
        """DataError, naming the record, where windows of ``length`` samples cannot be cut."""
        for record in (*self.events.records, *self.noises.records, *self.unlabelled.records):
            end = record.samples.shape[1]
            if record.is_event and not record.lead <= record.p < end:
                raise DataError(f"{record.name}: P lies outside of the record, at sample {record.p - record.lead}")
            earliest = record.p - GUARD if record.is_event else end
            if earliest + record.lead < length:
                held = (end - record.lead) / RATE_HZ
                raise DataError(f"{record.name}: {held:g} s are too short for a window of {length / RATE_HZ:g} s")

    def draw(self, rng: Rng, item: int, length: int) -> Example:
        """(3, length), of the class whose turn it is; everything but the turn comes from ``rng``."""
        if self.unlabelled_share and rng.random() < self.unlabelled_share:
            record = self.unlabelled.draw(rng)
        else:
            record = self.turns[item % len(self.turns)].draw(rng)
        if record.is_event:
            return self._event(rng, record, length)
        if record.kind == "unlabelled":
            end = int(rng.integers(min(length, record.samples.shape[1]), record.samples.shape[1] + 1))
            return Example(self._cut(record, end, length), "unlabelled", length)
        if rng.random() < self.windows.silence_share:
            return Example(np.zeros((3, length), np.float32), "noise", length)
        return Example(self._noise(rng, record, length), "noise", length)

    def noise(self, rng: Rng, length: int) -> Samples:
        """(3, length) from a noise record, or from before P of an event record; DataError where there is neither."""
        return self._noise(rng, None, length)

    def earthquake(self, rng: Rng, length: int) -> Example:
        """(3, length) with P or S in it; DataError where there is no earthquake."""
        return self._event(rng, self.events.draw(rng), length)

    def _noise(self, rng: Rng, record: Record | None, length: int) -> Samples:
        """From ``record``, or any; or from before P or the coda of an event record instead."""
        if self.windows.coda_share and self.codas.records and rng.random() < self.windows.coda_share:
            return self._coda(rng, length)
        share = self.windows.before_p_share if self.noises.records else 1.0
        before_p = bool(self.quiet.records) and rng.random() < share
        if before_p:
            record = self.quiet.draw(rng)
        record = record or self.noises.draw(rng)
        last = record.p - GUARD if before_p else record.samples.shape[1]
        first = max(record.lead, length - record.lead)
        return self._cut(record, int(rng.integers(first, last + 1)), length)

    def _coda(self, rng: Rng, length: int) -> Samples:
        record = self.codas.draw(rng)
        first, end = _coda_begins(record), int(record.samples.shape[1])
        return self._cut(record, int(rng.integers(first, min(first + round(CODA_LASTS_S * RATE_HZ), end) + 1)), length)

    def _event(self, rng: Rng, record: Record, length: int) -> Example:
        end = _event_end(rng, record, self.windows.ages)
        samples = self._cut(record, end, length)
        return Example(samples, "earthquake", record.p - (end - length), record.magnitude, record.back_azimuth_deg)

    def _cut(self, record: Record, end: int, length: int) -> Samples:
        """(3, length) copied, up to ``end``; what the lead lacks is the lead mirrored."""
        if self.told:
            self.told(record.name)
        missing = max(length - end, 0)
        if missing > record.lead:
            raise DataError(f"{record.name}: too short for a window of {length / RATE_HZ:g} s")
        part = record.samples[:, end - length + missing : end]
        return np.pad(part, ((0, 0), (missing, 0)), mode="symmetric") if missing else part.copy()


def _by_kind(records: Sequence[Record], windows: Windows, turns: tuple[Group, ...], power: float) -> Drawer:
    def group(what: str, wanted: Callable[[Record], bool]) -> Group:
        return Group.of(what, [record for record in records if wanted(record)], power)

    return Drawer(
        windows,
        turns,
        events=group("an earthquake", lambda r: r.is_event),
        noises=group("noise", lambda r: r.kind == "noise"),
        quiet=group("quiet before P", lambda r: r.is_event and not r.is_crowded and r.p - r.lead > 2 * GUARD),
        codas=group("an earthquake's coda", _has_coda),
        unlabelled=group("no label", lambda r: r.kind == "unlabelled"),
    )


def _turns(records: Sequence[Record], sampling: Sampling, head: Head) -> tuple[Group, ...]:
    classes = classes_of(records, head)
    if sampling.how == "natural":
        return (Group.of("any class", records, 1.0),)
    if sampling.how == "weighted":
        factors = np.array([*(sampling.class_weights.get(name, 1.0) for name in head.classes), 1.0])
        return (Group.of("any class", records, sampling.source_power, factors[classes]),)  # UNKNOWN_CLASS: the last
    members = {index: [r for r, c in zip(records, classes, strict=True) if c == index] for index in sorted({*classes})}
    members.pop(UNKNOWN_CLASS, None)
    return tuple(Group.of(head.classes[index], found, sampling.source_power) for index, found in members.items())


def _has_coda(record: Record) -> bool:
    told_by_people = record.is_event and not record.is_crowded and BY_PICKERS not in record.origin
    return told_by_people and _coda_begins(record) <= record.samples.shape[1]


def _coda_begins(record: Record) -> int:
    s = record.s if record.s > 0 else record.p + round(S_AFTER_P_S * RATE_HZ)
    return s + round(CODA_S * RATE_HZ)


def _event_end(rng: Rng, record: Record, ages: Sequence[Age]) -> int:
    """Index after the last sample of a window of an earthquake."""
    kind, reached = rng.random(), 0.0
    chosen = next(age for age in reversed(ages) if age.phase == "P")
    for age in ages:
        reached += age.share
        if kind < reached and (age.phase == "P" or record.s > 0):
            chosen = age
            break
    phase = record.s if chosen.phase == "S" else record.p
    end = phase + max(round(rng.uniform(chosen.from_s, chosen.to_s) * RATE_HZ), 1)
    return min(end, int(record.samples.shape[1]))
