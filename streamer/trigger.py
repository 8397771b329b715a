"""When one station's earthquake begins and ends: thresholds, windows in a row, dead time.

A pure state machine over the windows of one subject in order. Its state is a small model that the outbox keeps, so that
a restart goes on where the last decision was.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

from pydantic import BaseModel, ConfigDict

from quake.alerts import Characterisation
from quake.characterisation import newer
from quake.data.decision import ROUNDING, log_odds
from streamer import onset
from streamer.grid import Grid
from streamer.stages import NS, Detection, Passed, Score, Unscored, Window

NAMESPACE = uuid.UUID("6f1d1d0e-6f2c-5e0b-9c3a-7b0d5d1f4a11")
"""Of all alert ids: two daemons that watch one station make one id."""
AGAIN_S = (5.0, 10.0)
"""After the first window of a detection that opened: when its size is asked for again."""
TRACE_WINDOWS = 30
"""Probabilities kept to show what led to an alert."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    on: float
    off: float
    in_a_row: int
    """Windows that open a detection: none below ``off``, and the mean of their log-odds at or above that of ``on``."""
    release: int
    """Windows below ``off`` that close it."""
    dead_k: int
    """Windows after the first of an opening during which no other run may begin."""
    longest_k: int
    """A detection closes after this many windows, whatever the probability."""


@dataclass(frozen=True, slots=True)
class ModelName:
    """The part of a model that an alert's identity rests on."""

    name: str
    major: int


class OpenDetection(BaseModel):
    model_config = ConfigDict(extra="forbid")

    id: str
    first_k: int
    opened_k: int
    onset_ns: int
    peak: float
    components: str
    complete: bool
    below: int = 0
    held: bool = False
    """Its opening was not told, so its closing is not either."""
    characterisation: Characterisation | None = None


class TriggerState(BaseModel):
    """All that a trigger remembers."""

    model_config = ConfigDict(extra="forbid")

    last_k: int | None = None
    """The newest window decided."""
    run: list[tuple[int, float]] = []
    """(k, probability) of the newest windows in a row at or above ``off``, while closed."""
    opened: OpenDetection | None = None
    last_first_k: int | None = None
    """First window of the newest opening."""
    trace: list[tuple[int, float]] = []


def mean_log_odds(probabilities: Iterable[float]) -> float:
    """An earthquake's windows grow less sure as P grows old: what counts is what they say together."""
    return fmean(map(log_odds, probabilities))


def detection_id(subject: str, model: ModelName, k: int) -> str:
    return str(uuid.uuid5(NAMESPACE, f"detection|{subject}|{model.name}|{model.major}|{k}"))


def onset_ns(grid: Grid, window: Window, first: int) -> int:
    """Refined on the vertical of the deciding window, else on whichever component is there. ``first``: of the run."""
    row = "ZNE".index(window.components[0])
    end_of_first = grid.window - (window.k - first) * grid.hop
    begin = max(0, end_of_first - int(onset.SEARCH_S * grid.rate))
    index = onset.refine(window.samples[row], begin)
    return grid.start_ns(window.k) + index * NS // grid.rate


class Trigger:
    """For one subject."""

    def __init__(
        self, subject: str, grid: Grid, thresholds: Thresholds, model: ModelName, state: TriggerState | None = None
    ) -> None:
        self._subject, self._grid, self._thresholds, self._model = subject, grid, thresholds, model
        self._again_k = {round(after_s * grid.rate / grid.hop) for after_s in AGAIN_S}
        self.state = state or TriggerState()

    @property
    def decided_ns(self) -> int:
        """End of the newest window decided; 0 before the first."""
        return 0 if self.state.last_k is None else self._grid.end_ns(self.state.last_k)

    def hold(self) -> None:
        """The detection that is open is not told on its own."""
        if self.state.opened is not None:
            self.state.opened.held = True

    def asks(self, k: int) -> bool:
        """Whether window k, which was just decided, is one to characterise the detection by."""
        opened = self.state.opened
        return opened is not None and (k == opened.opened_k or k - opened.first_k in self._again_k)

    def characterise(self, found: Characterisation) -> OpenDetection:
        """The open detection, which `asks` said there is, with what now stands of its size."""
        assert self.state.opened is not None
        self.state.opened.characterisation = newer(self.state.opened.characterisation, found)
        return self.state.opened

    def decide(self, item: Score | Unscored | Passed) -> Detection | None:
        """Take the next window; a detection where it opens or closes one."""
        first, last = (item.k, item.k) if isinstance(item, Score) else (item.first, item.last)
        if self.state.last_k is not None and first <= self.state.last_k:
            return self._begin_again(last)
        if self.state.last_k is not None and first > self.state.last_k + 1:
            self.state.run = []  # windows that nobody decided stand in no row
        self.state.last_k = last
        if isinstance(item, Passed):
            return self._passed(item)
        return self._missing(item) if isinstance(item, Unscored) else self._scored(item, last)

    def _scored(self, item: Score, k: int) -> Detection | None:
        self.state.trace = [*self.state.trace, (k, round(item.probability, 4))][-TRACE_WINDOWS:]
        return self._while_closed(item) if self.state.opened is None else self._while_open(item, self.state.opened)

    def _begin_again(self, last_k: int) -> Detection | None:
        """The station's clock was set back: what was open ends where the old time ended."""
        old, self.state = self.state, TriggerState(last_k=last_k)
        return cut_off(self._subject, self._grid, old)

    def _missing(self, item: Unscored) -> Detection | None:
        """Windows without a score break a run; an open detection waits for data, though not for ever."""
        self.state.run = []
        opened = self.state.opened
        if opened is None or item.last - opened.first_k < self._thresholds.longest_k:
            return None
        return self._close(opened, opened.first_k + self._thresholds.longest_k, 0)

    def _passed(self, item: Passed) -> Detection | None:
        """Windows that nobody scored because they lie below ``off``."""
        self.state.run = []
        opened = self.state.opened
        if opened is None:
            return None
        closing_k = item.first + self._thresholds.release - opened.below - 1
        opened.below += item.last - item.first + 1
        return self._close(opened, closing_k, 0) if closing_k <= item.last else None

    def _while_closed(self, score: Score) -> Detection | None:
        state, limits, k = self.state, self._thresholds, score.window.k
        dead = state.last_first_k is not None and k - state.last_first_k < limits.dead_k
        if score.probability < limits.off or dead:
            state.run = []
            return None
        state.run = [*state.run, (k, score.probability)][-limits.in_a_row :]
        enough = (
            len(state.run) == limits.in_a_row
            and mean_log_odds(p for _, p in state.run) >= log_odds(limits.on) - ROUNDING
        )
        return self._open(score) if enough else None

    def _open(self, score: Score) -> Detection:
        state, window = self.state, score.window
        first = state.run[0][0]
        state.opened = OpenDetection(
            id=detection_id(self._subject, self._model, first),
            first_k=first,
            opened_k=window.k,
            onset_ns=score.onset_ns or onset_ns(self._grid, window, first),
            peak=max(p for _, p in state.run),
            components=window.components,
            complete=window.complete,
        )
        state.last_first_k, state.run = first, []
        decided_ns = self._grid.end_ns(window.k)
        return _detection(self._subject, state.opened, decided_ns, None, window.received_ns, state.trace)

    def _while_open(self, score: Score, opened: OpenDetection) -> Detection | None:
        limits, k = self._thresholds, score.window.k
        opened.peak = max(opened.peak, score.probability)
        opened.below = opened.below + 1 if score.probability < limits.off else 0
        if opened.below >= limits.release or k - opened.first_k >= limits.longest_k:
            return self._close(opened, k, score.window.received_ns)
        return None

    def _close(self, opened: OpenDetection, k: int, received_ns: int) -> Detection:
        self.state.opened = None
        end_ns = self._grid.end_ns(k)
        return _detection(self._subject, opened, end_ns, end_ns, received_ns, self.state.trace)


def cut_off(subject: str, grid: Grid, state: TriggerState) -> Detection | None:
    """What is open in a state with which nobody goes on, closed at the end of its last window."""
    if state.opened is None or state.last_k is None:
        return None
    end_ns = grid.end_ns(state.last_k)
    return _detection(subject, state.opened, end_ns, end_ns, 0, state.trace)


def _detection(
    subject: str,
    opened: OpenDetection,
    decided_ns: int,
    off_ns: int | None,
    received_ns: int,
    trace: list[tuple[int, float]],
) -> Detection:
    return Detection(
        id=opened.id,
        subject=subject,
        k=opened.first_k,
        opened_k=opened.opened_k,
        onset_ns=opened.onset_ns,
        decided_ns=decided_ns,
        off_ns=off_ns,
        probability=opened.peak,
        components=opened.components,
        complete=opened.complete,
        received_ns=received_ns,
        trace=tuple(trace),
        held=opened.held,
        characterisation=opened.characterisation,
    )
