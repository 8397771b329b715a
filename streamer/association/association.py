"""From the notes of all shards to events. Pure: the same notes in the same order give the same events.

So who takes over from an associator that died comes to its very events by taking the same notes, and the events are those of
one daemon that watches all stations, as long as no shard lags by more than ``hold``.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from quake.alerts import ModelIdentity
from streamer.association.notes import Note
from streamer.coincidence import Coincidence, CoincidenceState, Event, Rules


class AssociationState(BaseModel):
    """All that the notes so far come to."""

    model_config = ConfigDict(extra="forbid")

    coincidence: CoincidenceState = CoincidenceState()
    decided_ns: dict[str, int] = {}
    """Subject -> how far it has decided, by whichever shard was the furthest."""
    model: ModelIdentity | None = None
    """Of the newest note."""


class Association:
    def __init__(self, rules: Rules, state: AssociationState | None = None) -> None:
        self._state = state or AssociationState()
        self._coincidence = Coincidence(rules, self._state.coincidence)

    @property
    def state(self) -> AssociationState:
        self._state.coincidence = self._coincidence.state
        return self._state

    @property
    def model(self) -> ModelIdentity | None:
        return self._state.model

    @property
    def reached_ns(self) -> int:
        """Data time, as far as events are decided."""
        return self._coincidence.state.reached_ns

    @property
    def is_waiting(self) -> bool:
        """Whether anything would come of more data time."""
        state = self._coincidence.state
        return bool(state.waiting or state.events)

    def apply(self, note: Note) -> list[Event]:
        """What a shard told; what of it was told before, by another replica or by who had the station before, is passed over."""
        self._state.model = note.model
        decided_ns = self._state.decided_ns
        for member in note.members:
            # A closing twice is no harm, and one may be of a clock that was set back: no later than what was decided before.
            if member.closed or member.decided_ns > decided_ns.get(member.subject, 0):
                self._coincidence.add_member(member)
        for size in note.sizes:
            if size.decided_ns > decided_ns.get(size.subject, 0):
                self._coincidence.characterise(size.id, size.decided_ns, size.characterisation)
        for subject, ns in note.decided_ns.items():
            decided_ns[subject] = max(ns, decided_ns.get(subject, 0))
        return list(self._coincidence.advance(self._coincidence.watermark_ns(decided_ns)))

    def release(self) -> list[Event]:
        """Nobody has told anything for long: what waits for other stations is told."""
        return list(self._coincidence.advance(max(self._state.decided_ns.values(), default=0)))
