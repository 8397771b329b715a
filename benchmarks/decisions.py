"""What the daemon decides on recordings of one station each, and on several of them together.

A file is scanned through the daemon's pipeline, or played to the daemon as a process. Detections of stations whose files
overlap in time are joined by the daemon's own coincidence afterwards, so that one file at a time is in memory. What is not
here: which alarms are false (`benchmarks.false_alarms`).
"""

from __future__ import annotations

import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import redis
import tomli_w

from quake.alerts import Alert, Keys, Mode
from streamer.coincidence import Coincidence, Event
from streamer.composition import Scorer, rules
from streamer.config import Config, ConfigError
from streamer.demo import START_S, Daemon, DemoError, redis_server
from streamer.hooks import Hooks
from streamer.inventory import read_stations
from streamer.scan import read_packets, scan
from streamer.server import ReplayServer
from streamer.stages import NS, Detection, Score

SEQUENCE = "aftershock"
"""In the character of a recording whose alarms are mostly true earthquakes."""
STATIONS = (2, 3)
"""That make an event."""
LIVE_SPEED = 60.0
"""Times real time: a core is half idle at it."""
FOR_EVER_NS = 1 << 62


@dataclass(frozen=True, slots=True)
class Alarm:
    """One station's detection, from opening to closing."""

    file: str
    station: str
    opened_ns: int
    """End of the window that opened it."""
    onset_ns: int
    probability: float
    """The highest."""
    lasted_s: float
    """From there to the window that closed it, or to the last one scored."""


@dataclass(slots=True)
class Heard(Hooks):
    """What the pipeline decided on one file."""

    file: Path
    character: str
    scores: dict[str, dict[int, float]] = field(default_factory=dict)
    """Subject -> number of the window -> probability."""
    detections: list[Detection] = field(default_factory=list)
    """Openings and closings."""
    live: bool | None = None
    """Whether the daemon as a process decided the same; None: not asked."""

    def scored(self, scores: list[Score]) -> None:
        for score in scores:
            self.scores.setdefault(score.window.subject, {})[score.window.k] = score.probability

    def detected(self, detection: Detection) -> None:
        self.detections.append(detection)

    @property
    def is_sequence(self) -> bool:
        return SEQUENCE in self.character

    @property
    def stations(self) -> str:
        return ", ".join(sorted(map(station_of, self.scores)))

    @property
    def decided(self) -> Counter[tuple[str, bool]]:
        """(Id, whether it closes) of the detections."""
        return Counter((detection.id, detection.off_ns is not None) for detection in self.detections)

    def hours(self, scorer: Scorer) -> float:
        """Of stations."""
        return sum(map(len, self.scores.values())) * scorer.grid.hop_ns / NS / 3600

    def alarms(self, scorer: Scorer) -> Iterator[Alarm]:
        closings = {d.id: d for d in self.detections if d.off_ns is not None}
        for opening in (d for d in self.detections if d.off_ns is None):
            closing = closings.get(opening.id)
            last_ns = scorer.grid.end_ns(max(self.scores[opening.subject]))
            yield Alarm(
                file=self.file.name,
                station=station_of(opening.subject),
                opened_ns=opening.decided_ns,
                onset_ns=opening.onset_ns,
                probability=round((closing or opening).probability, 4),
                lasted_s=((closing.off_ns if closing and closing.off_ns else last_ns) - opening.decided_ns) / NS,
            )


@dataclass(frozen=True, slots=True)
class Together:
    """Events of stations whose files overlap in time."""

    group: tuple[Heard, ...]
    min_stations: int
    hours: float
    """In which so many of the stations were scored."""
    events: tuple[Event, ...]

    @property
    def is_sequence(self) -> bool:
        return any(heard.is_sequence for heard in self.group)


def station_of(subject: str) -> str:
    """``FDSN:CM_URMC_00_H_H`` -> ``CM.URMC``."""
    return ".".join(subject.removeprefix("FDSN:").split("_")[:2])


def listen(file: Path, character: str, config: Config, scorer: Scorer) -> Heard:
    """Scan one file. RecordError where it cannot be read."""
    heard = Heard(file, character)
    single = config.model_copy(update={"coincidence": False})  # files are joined later: one is in memory at a time
    scan(single, scorer, read_packets([file], time.time_ns()), [heard])
    return heard


def played(file: Path, settings: Mapping[str, Any]) -> Counter[tuple[str, bool]]:
    """What the daemon as a process publishes of one file: (id, whether it closes) of detections.

    ``settings``: of a configuration. DemoError where the daemon does not start, or does not come to the file's end.
    """
    prefix = f"{{quake}}:{uuid.uuid4().hex[:8]}"
    keys = Keys.of(Mode.REPLAY, prefix)
    with (
        tempfile.TemporaryDirectory() as folder,
        redis_server() as url,
        ReplayServer([str(file)], speed=LIVE_SPEED) as server,
    ):
        config = Path(folder) / "quake.toml"
        live = {
            "mode": "replay",
            "state": "state",
            "metrics": {"port": 0},
            "redis": {"url": url, "prefix": prefix},
        }
        source = [{"servers": [server.address], "select": ["*.*"]}]
        config.write_text(tomli_w.dumps({**settings, **live, "source": source, "coincidence": False}))
        with Daemon(config, config.with_suffix(".log")) as daemon:
            if not server.wait_sent(START_S + (server.records[-1].end_ns - server.records[0].start_ns) / NS):
                raise DemoError(f"{file}: the daemon did not take all of it")
            daemon.wait_received(server.counters.packets)
            daemon.stop()
        with redis.Redis.from_url(url, decode_responses=True) as client:
            entries: Any = client.xrange(keys.detections)
            alerts = [Alert.model_validate_json(fields["alert"]) for _, fields in entries]
            client.delete(*client.keys(f"{prefix}:*"))
    return Counter((alert.id, alert.off_time is not None) for alert in alerts)


def groups(all_heard: Iterable[Heard]) -> Iterator[tuple[Heard, ...]]:
    """Those that overlap in time, in order of time."""
    group: list[Heard] = []
    for heard in sorted((h for h in all_heard if h.scores), key=_span):
        if group and _span(heard)[0] > max(_span(one)[1] for one in group):
            yield tuple(group)
            group = []
        group.append(heard)
    if group:
        yield tuple(group)


def _span(heard: Heard) -> tuple[int, int]:
    """First and last window scored."""
    numbers = [k for series in heard.scores.values() for k in series]
    return min(numbers), max(numbers)


def associate(group: tuple[Heard, ...], min_stations: int, config: Config, scorer: Scorer) -> Together:
    """As the daemon does where no station lags. ConfigError where coincidence is switched off."""
    rule = rules(config, read_stations(config.inventory, config.places))
    if rule is None:
        raise ConfigError("coincidence is switched off")
    coincidence = Coincidence(replace(rule, min_stations=min_stations))
    for detection in (d for heard in group for d in heard.detections):
        coincidence.add(detection)
    events = [event for event in coincidence.advance(FOR_EVER_NS) if event.revision == 0]
    counts = Counter(k for numbers in by_station(group).values() for k in numbers)
    windows = sum(count >= min_stations for count in counts.values())
    return Together(group, min_stations, windows * scorer.grid.hop_ns / NS / 3600, tuple(events))


def by_station(group: Iterable[Heard]) -> Mapping[str, set[int]]:
    """Windows scored; a station's two sensors are one station."""
    numbers: dict[str, set[int]] = {}
    for subject, series in (item for heard in group for item in heard.scores.items()):
        numbers.setdefault(station_of(subject), set()).update(series)
    return numbers


def join(all_heard: Sequence[Heard], config: Config, scorer: Scorer) -> list[Together]:
    """Where enough stations were scored at one time."""
    several = [group for group in groups(all_heard) if len(by_station(group)) > 1]
    joined = [associate(group, least, config, scorer) for group in several for least in STATIONS]
    return [one for one in joined if one.hours]
