"""What a shard tells the associator, in one row: its detections and how far each of its stations has decided.

Both go the same way, through the outbox in the transaction of their decision and then by one stream in that order, so that
whoever reads "decided up to here" has read every detection up to there. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from quake.alerts import Characterisation, ModelIdentity
from streamer.coincidence import Member
from streamer.stages import Detection


class Size(BaseModel):
    """What a station says of a detection's size."""

    model_config = ConfigDict(extra="ignore")

    id: str
    subject: str
    decided_ns: int
    characterisation: Characterisation


class Note(BaseModel):
    """What a shard decided since its last one."""

    model_config = ConfigDict(extra="ignore")  # a shard of a newer release may have written it

    model: ModelIdentity
    decided_ns: dict[str, int] = {}
    """Subject -> end of its newest decided window, of those that moved: all that it decided by then is told."""
    members: list[Member] = []
    """Openings and closings, in the order in which they were decided."""
    sizes: list[Size] = []


class Notes:
    """Gathers a shard's next note."""

    def __init__(self, model: ModelIdentity) -> None:
        self._model = model
        self._told_ns: dict[str, int] = {}
        self._members: list[Member] = []
        self._sizes: list[Size] = []

    def add(self, detection: Detection) -> None:
        self._members.append(Member.of(detection))

    def characterise(self, ident: str, subject: str, decided_ns: int, found: Characterisation) -> None:
        self._sizes.append(Size(id=ident, subject=subject, decided_ns=decided_ns, characterisation=found))

    @property
    def is_urgent(self) -> bool:
        """Whether it holds detections: their note is committed with their decision."""
        return bool(self._members or self._sizes)

    def take(self, decided_ns: Mapping[str, int]) -> str | None:
        """The note as JSON, None where there is nothing to tell. ``decided_ns``: of every subject, as of now."""
        moved = {subject: ns for subject, ns in decided_ns.items() if ns and self._told_ns.get(subject) != ns}
        if not (moved or self._members or self._sizes):
            return None
        note = Note(model=self._model, decided_ns=moved, members=self._members, sizes=self._sizes)
        self._told_ns |= moved
        self._members, self._sizes = [], []
        return note.model_dump_json(exclude_defaults=True)
