"""The alert, and where it is found on Redis. `AlertSubscriber` reads alerts from there (`quake.subscriber`, named
here too)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from quake.times import Timestamp, format_ns

if TYPE_CHECKING:
    from obspy.core.event import Catalog

    from quake.subscriber import AlertSubscriber, HeartbeatLostError

__all__ = [
    "Alert",
    "AlertSubscriber",
    "HeartbeatLostError",
    "Keys",
    "Kind",
    "Mode",
    "Status",
]

SCHEMA_VERSION = "1.0"

Probability = Annotated[float, Field(ge=0.0, le=1.0)]


class Mode(StrEnum):
    LIVE = "live"
    REPLAY = "replay"
    SCAN = "scan"
    EXERCISE = "exercise"


class Kind(StrEnum):
    DETECTION = "detection"
    EVENT = "event"


class Status(StrEnum):
    OPEN = "open"
    UPDATE = "update"
    CLOSED = "closed"
    CANCELLED = "cancelled"


class _Message(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)  # a subscriber may be older than the daemon


class StationOnset(_Message):
    """One station's part in an alert."""

    source_id: str = Field(description="FDSN source identifier without component, FDSN:BW_UH3__S_H")
    detection_id: str = Field(description="Id of the single-station alert")
    onset: Timestamp
    probability: Probability
    latitude: float | None = Field(default=None, ge=-90, le=90, description="Degrees north; null where not known")
    longitude: float | None = Field(default=None, ge=-180, le=180, description="Degrees east; null where not known")


class ModelIdentity(_Message):
    name: str
    version: str
    sha256: str = Field(description="Of the model file")


class Latency(_Message):
    data_s: float = Field(description="From onset to when the deciding packet had come, on this machine's clock")
    processing_s: float = Field(ge=0, description="From then to the alert's commitment to the outbox")


class TracePoint(_Message):
    window_start: Timestamp
    probability: Probability


class Characterisation(_Message):
    magnitude: dict[str, Probability] | None = Field(description="Probability of each magnitude class; null: not known")
    azimuth: dict[str, Probability] | None = Field(
        description="Probability of each back-azimuth class; null: not known"
    )
    unknown: dict[str, str] = Field(default_factory=dict, description="Why a head says null, by its name")


class Alert(_Message):
    """One revision of one alert. ``id`` and ``revision`` together are unique; the highest revision stands."""

    schema_version: str = Field(
        default=SCHEMA_VERSION, pattern=r"^1\.\d+$", description="1.x: fields are only ever added"
    )
    id: str = Field(description="UUID; the same for the same recording, live, replayed or scanned")
    revision: int = Field(ge=0)
    mode: Mode
    kind: Kind
    status: Status
    onset: Timestamp = Field(description="Of the earliest station")
    on_time: Timestamp = Field(description="End of the window that decided it")
    off_time: Timestamp | None = Field(default=None, description="When it closed; null while open")
    stations: tuple[StationOnset, ...] = Field(min_length=1)
    probability: Probability = Field(description="Highest window probability so far")
    characterisation: Characterisation | None = None
    model: ModelIdentity
    latency: Latency
    complete: bool = Field(description="Whether every expected component of every station was there, without a gap")
    unused: dict[str, int] = Field(default_factory=dict, description="Windows not scored since the start, by reason")
    stale: bool = Field(default=False, description="Older than max_age_s when it was published: nobody is to be woken")
    trace: tuple[TracePoint, ...] = Field(default=(), description="The probabilities that led to it, oldest first")
    created: Timestamp = Field(description="When it was committed on the detecting machine")

    def summary(self) -> str:
        """One line for a terminal or a log."""
        names = " ".join(s.source_id.removeprefix("FDSN:") for s in self.stations)
        return (
            f"{self.kind:<9} {self.status:<6} r{self.revision} onset {format_ns(self.onset)} "
            f"p {self.probability:.3f}{self._size()} {len(self.stations)} station(s): {names}  {self.id}"
        )

    def _size(self) -> str:
        """The likeliest class of magnitude, where one is told."""
        classes = self.characterisation and self.characterisation.magnitude
        if not classes:
            return ""
        name, probability = max(classes.items(), key=lambda one: one[1])
        return f" magnitude {name} ({probability:.2f})"

    def to_quakeml(self) -> Catalog:
        """An ObsPy catalogue with one event: a pick for each station and an origin without a location."""
        from quake.quakeml import catalog

        return catalog(self)


@dataclass(frozen=True, slots=True)
class Keys:
    """Names on Redis. All share a hash tag, so that the publish script runs on a cluster."""

    prefix: str = "{quake}"

    @staticmethod
    def of(mode: Mode, prefix: str = "{quake}") -> Keys:
        """Only live alerts go to the streams that subscribers read by default."""
        return Keys(prefix if mode is Mode.LIVE else f"{prefix}:{mode}")

    @property
    def events(self) -> str:
        """Stream and channel of events."""
        return f"{self.prefix}:alerts"

    @property
    def detections(self) -> str:
        """Stream and channel of single-station detections."""
        return f"{self.prefix}:detections"

    @property
    def heartbeat(self) -> str:
        """Hash of daemon -> nanoseconds since 1970, and the channel that names who beat."""
        return f"{self.prefix}:heartbeat"

    @property
    def epoch(self) -> str:
        return f"{self.prefix}:epoch"

    def stream(self, kind: Kind) -> str:
        return self.events if kind is Kind.EVENT else self.detections

    def seen(self, alert_id: str) -> str:
        """Highest revision published of an alert."""
        return f"{self.prefix}:seen:{alert_id}"

    def opened(self, subject: str) -> str:
        """Sorted set of the newest openings of a subject: ms since 1970 -> id. Not ``opened``, which held window numbers."""
        return f"{self.prefix}:openings:{subject}"

    @property
    def stations(self) -> str:
        """Hash of NET_STA -> JSON: how far a daemon has decided it, for whichever takes it over."""
        return f"{self.prefix}:stations"

    @property
    def notes(self) -> str:
        """Stream of what shards decided, for the associator; what a checkpoint covers is trimmed."""
        return f"{self.prefix}:association:notes"

    @property
    def checkpoint(self) -> str:
        """JSON of what an associator needs to take over, with the entry of `notes` to go on after."""
        return f"{self.prefix}:association:checkpoint"

    @property
    def lease(self) -> str:
        """Who associates now; expires."""
        return f"{self.prefix}:association:lease"

    @property
    def lease_number(self) -> str:
        """How often the lease was taken."""
        return f"{self.prefix}:association:number"

    @property
    def lease_token(self) -> str:
        """The newest fencing token: who writes with an older one is refused."""
        return f"{self.prefix}:association:token"

    def live_state(self, daemon: str) -> str:
        """JSON of a daemon's health and its stations; gone 15 s after it was last written."""
        return f"{self.prefix}:live:state:{daemon}"

    def live_data(self, subject: str) -> str:
        """Stream of a station's newest five minutes: ``samples`` and ``window``, JSON. Written while `viewer` is there."""
        return f"{self.prefix}:live:data:{subject}"

    def viewer(self, subject: str) -> str:
        """There while somebody looks at the station; whoever does sets it to expire soon, again and again."""
        return f"{self.prefix}:live:viewer:{subject}"

    def hour(self, subject: str, hour: int) -> str:
        """An hour of a station's helicorder, by its number since 1970: four letters for the least and most of each 5 s."""
        return f"{self.prefix}:live:hour:{subject}:{hour}"

    def picture(self, alert_id: str) -> str:
        """JSON of the waveforms and probabilities around an alert's onset: of events for a week, else for half a day."""
        return f"{self.prefix}:live:picture:{alert_id}"

    @property
    def marks(self) -> str:
        """Stream of what operators said of alerts. Never trimmed: they are labels for the next training."""
        return f"{self.prefix}:marks"

    @property
    def mutes(self) -> str:
        """Hash of station -> JSON: until when it is muted, by whom and why."""
        return f"{self.prefix}:mutes"


def __getattr__(name: str) -> Any:
    # The subscriber needs the message and the message's users need no Redis: named here, loaded on use.
    if name in ("AlertSubscriber", "HeartbeatLostError"):
        from quake import subscriber

        return getattr(subscriber, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
