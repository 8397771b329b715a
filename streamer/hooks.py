"""What the pipeline tells about itself. Metrics, readiness and drills hang on these; the pipeline imports none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from quake.alerts import Alert, ModelIdentity
from streamer.grid import Grid
from streamer.stages import Detection, Packet, Refused, Score, Unscored, Unused


class Hooks:
    """Does nothing; override what is of interest. Called from the pipeline's thread unless said otherwise; must not block."""

    def packet(self, packet: Packet) -> None:
        """A record was read."""

    def refused(self, refused: Refused) -> None:
        """A record held no usable samples."""

    def samples_unused(self, channel: str, reason: Unused, count: int) -> None:
        """Samples of a channel were not used."""

    def windows_unused(self, unscored: Unscored) -> None:
        """Windows were not scored."""

    def scored(self, scores: list[Score]) -> None:
        """A batch came back from the model."""

    def detected(self, detection: Detection) -> None:
        """A station's detection opened or closed."""

    def held(self, detection: Detection) -> None:
        """An opening that is not told on its own: too many within the minute."""

    def stage(self, name: str, seconds: float) -> None:
        """A stage took this long."""

    def state(self, station: str, newest_ns: int, decided_ns: int, fill: float) -> None:
        """How far a station is, now and then."""

    def tick(self) -> None:
        """The pipeline has come round."""

    def behind(self, seconds: float) -> None:
        """Decisions against the newest samples received, of the station that is furthest behind, now and then."""

    def queue(self, packets: int, windows: int, undecided: int) -> None:
        """How much waits, now and then."""

    def overload(self, dropping: bool) -> None:
        """The machine cannot keep up, or can again."""

    def committing(self, alerts: list[Alert]) -> None:
        """About to write the outbox."""

    def committed(self, alerts: list[Alert]) -> None:
        """The outbox is written."""

    def commit_failed(self, cause: str) -> None:
        """The outbox could not be written; it is tried again."""

    def published(self, alert: Alert, outcome: str) -> None:
        """Redis answered ``sent``, ``repeat`` or ``echo``. Publisher's thread."""

    def marked_sent(self, count: int) -> None:
        """The outbox knows that so many were sent. Publisher's thread."""

    def publish_failed(self, cause: str) -> None:
        """Redis could not be written. Publisher's thread; or, where it could not be asked at the start, the pipeline's."""

    def redis_reachable(self, time_ns: int) -> None:
        """A heartbeat went out. Publisher's thread."""

    def associated(self, is_there: bool) -> None:
        """Whether an associator decides the events, where they are not the daemon's own. Publisher's thread."""

    def backlog(self, depth: int, oldest_ns: int | None) -> None:
        """Alerts in the outbox that were not sent."""

    def outbox_size(self, used_bytes: int) -> None:
        """What the outbox fills, once an hour. Publisher's thread."""

    def began(self, model: ModelIdentity, grid: Grid, expected: Callable[[], Mapping[str, object]]) -> None:
        """The stages were made, at the start or anew: what was said of stations and servers before holds no longer.
        ``expected``: the subjects that are known to come, whenever it is asked."""

    def reloaded(self, outcome: str) -> None:
        """Another configuration was taken (``done``) or not (``refused``). The latter from a thread of its own."""

    def host_clock(self, is_synchronised: bool, largest_error_s: float) -> None:
        """What the kernel says of this machine's clock, now and then."""

    def shadow_scored(self, ours: Score, shadows: Score) -> None:
        """The model on trial scored the same window."""

    def shadow_detected(self, whose: str) -> None:
        """An opening of a detection that ``both`` have, or the ``model`` or the ``shadow`` alone."""

    def shadow_ended(self) -> None:
        """The model on trial failed and is not asked any more."""

    def live_dropped(self, count: int) -> None:
        """So much was left out of the web page, because it came faster than it was taken. Feed's thread."""

    def source(self, kind: str, server: str, cause: str) -> None:
        """A server was connected or lost. Source's threads."""


class Fan(Hooks):
    """Tells several, in order."""

    def __init__(self, hooks: Iterable[Hooks]) -> None:
        hooks = tuple(hooks)
        for name in (n for n in vars(Hooks) if not n.startswith("_")):
            setattr(self, name, _fan([getattr(h, name) for h in hooks]))


def _fan(calls: list[object]) -> object:
    def tell(*arguments: object) -> None:
        for call in calls:
            call(*arguments)  # type: ignore[operator]

    return tell
