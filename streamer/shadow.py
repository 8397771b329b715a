"""A model on trial: it scores the windows that the daemon's own model scored, and only how they differ is told, as metrics.

It decides nothing. A fault of it ends the trial, not the watch; while windows are dropped for overload it stands back.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from streamer.hooks import Hooks
from streamer.stages import Detection, Score
from streamer.trigger import Trigger
from streamer.worker import Decided, Worker

Whose = Literal["both", "model", "shadow"]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Comparison:
    """Which openings of one station the two models share: those that begin within ``near_k`` windows. Pure."""

    near_k: int
    wait_k: int = 0
    """How many windows more the one may be ahead of the other: a batch."""
    _alone: dict[Literal["model", "shadow"], list[int]] = field(default_factory=lambda: {"model": [], "shadow": []})

    def opened(self, k: int, whose: Literal["model", "shadow"]) -> list[Whose]:
        """What is settled by it."""
        others = self._alone["shadow" if whose == "model" else "model"]
        for other_k in others:
            if abs(other_k - k) <= self.near_k:
                others.remove(other_k)
                return ["both"]
        self._alone[whose].append(k)
        return []

    def passed(self, k: int) -> list[Whose]:
        """Both have decided window k: what stands alone for longer than the other may come later stays alone."""
        settled: list[Whose] = []
        for whose, openings in self._alone.items():
            old = [opening for opening in openings if k - opening > self.near_k + self.wait_k]
            settled += [whose] * len(old)
            self._alone[whose] = [opening for opening in openings if opening not in old]
        return settled


class Shadow(Hooks):
    """Hangs on the daemon's hooks; tells through those that it is given."""

    def __init__(self, worker: Worker, trigger: Callable[[str], Trigger], near_k: int, told: Hooks) -> None:
        self._worker, self._trigger, self._near_k, self._told = worker, trigger, near_k, told
        self._triggers: dict[str, Trigger] = {}
        self._compared: dict[str, Comparison] = {}
        self._is_on, self._stands_back = True, False

    def overload(self, dropping: bool) -> None:
        self._stands_back = dropping

    def scored(self, scores: list[Score]) -> None:
        if self._is_on and not self._stands_back:
            try:
                self._score(scores)
            except Exception:
                self._is_on = False
                log.exception("the shadow model failed: its trial is over until the next start or reload")
                self._told.shadow_ended()

    def detected(self, detection: Detection) -> None:
        if detection.off_ns is None and self._is_on:
            self._settle(self._comparison(detection.subject).opened(detection.k, "model"))

    def _score(self, scores: list[Score]) -> None:
        for ours, its in zip(scores, self._worker.score([score.window for score in scores]), strict=True):
            if isinstance(its, Score):
                self._told.shadow_scored(ours, its)
            self._decide(ours.window.subject, ours.window.k, its)

    def _decide(self, subject: str, k: int, its: Decided) -> None:
        opened = self._trigger_of(subject).decide(its)
        comparison = self._comparison(subject)
        if opened is not None and opened.off_ns is None:
            self._settle(comparison.opened(opened.k, "shadow"))
        self._settle(comparison.passed(k))

    def _settle(self, settled: list[Whose]) -> None:
        for whose in settled:
            self._told.shadow_detected(whose)

    def _trigger_of(self, subject: str) -> Trigger:
        if subject not in self._triggers:
            self._triggers[subject] = self._trigger(subject)
        return self._triggers[subject]

    def _comparison(self, subject: str) -> Comparison:
        if subject not in self._compared:
            self._compared[subject] = Comparison(self._near_k, self._worker.shapes[-1])
        return self._compared[subject]
