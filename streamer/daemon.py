"""The daemon: makes the stages from the configuration, starts the threads around them, and ends them in order.

`run` is the life of the process; `compose` the one place where stages meet.
"""

from __future__ import annotations

import fcntl
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from quake.alerts import Keys, ModelIdentity
from streamer.acknowledge import Acknowledgement
from streamer.alerting import Alerting
from streamer.coincidence import Coincidence, Rules
from streamer.config import SHIPPED_MODEL, Config, ConfigError
from streamer.grid import Grid
from streamer.hooks import Fan, Hooks
from streamer.inventory import Stations, read_stations
from streamer.metrics import HealthServer, Metrics
from streamer.operation import Operation
from streamer.outbox import Outbox, OutboxError, Saved
from streamer.overload import Overload
from streamer.pipeline import Parts, Pipeline, Source
from streamer.publisher import Publisher, PublishSettings
from streamer.source import SeedLinkSource, SourceSettings
from streamer.source.resume import ResumePoint
from streamer.stages import NS
from streamer.station import Policy, Station
from streamer.trigger import ModelName, Thresholds, Trigger, TriggerState
from streamer.worker import Batcher, Worker

if TYPE_CHECKING:
    from quake.artifact import CompiledModel

QUEUE_PACKETS = 4096
"""Received and not yet placed: 2 MB, and a minute of 60 stations; beyond it the servers wait."""
PUBLISH_DRAIN_S = 5.0
"""How long a stop waits for Redis; what is left goes out at the next start."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Scorer:
    """The model and what follows from it and the configuration."""

    model: CompiledModel
    grid: Grid
    name: ModelName
    thresholds: Thresholds
    earthquake: int
    """Place of the class among the model's."""

    @property
    def identity(self) -> ModelIdentity:
        spec = self.model.spec
        return ModelIdentity(name=spec.name, version=spec.version, sha256=self.model.sha256)

    @property
    def fingerprint(self) -> str:
        """Trigger states are of use only under the same of these."""
        return f"{self.name.name}/{self.name.major}/{self.grid.rate}/{self.grid.window}/{self.grid.hop}"


def model_path(config: Config) -> Path:
    """The configured model, or the one installed beside the program: found by path, never imported."""
    return config.model.path or Path(__file__).resolve().parent.parent / "models" / "zoo" / SHIPPED_MODEL


def load_scorer(config: Config) -> Scorer:
    """Raises `ConfigError` where the model cannot be used or does not fit the configuration."""
    from quake.artifact import CompiledModel, ModelError

    path, m = model_path(config), config.model
    try:
        model = CompiledModel.load(path, m.device, sha256=m.sha256, threads=m.threads)
    except ImportError as error:
        extra = "onnx" if error.name == "onnxruntime" else "torch"
        raise ConfigError(f"model: {error.name} is not installed: pip install 'quake[{extra}]'") from error
    except (ModelError, ValueError) as error:
        raise ConfigError(f"model: {error}") from error
    spec = model.spec
    if spec.task != "detect" or spec.thresholds is None or spec.components != ("Z", "N", "E"):
        raise ConfigError(f"model {model.path}: {spec.task} on {'/'.join(spec.components)}; wanted: detect on Z/N/E")
    if spec.unit != "any":
        raise ConfigError(f"model {model.path}: reads {spec.unit}; stations send counts")
    operation = Operation.of(config, spec)
    try:
        grid = Grid.of(spec.sampling_rate_hz, spec.window_samples, operation.hop_s)
    except ValueError as error:
        raise ConfigError(f"windows.hop_s: {error}") from error
    name = ModelName(spec.name, int(spec.version.split(".", maxsplit=1)[0]))
    if operation.is_other_hop:
        told = "the model's operating points were measured at a hop of %g s, not %g s (windows.hop_s)"
        log.warning(told, operation.point_hop_s, operation.hop_s)
    return Scorer(model, grid, name, _thresholds(config, grid, operation), _earthquake(spec.classes))


def _earthquake(classes: Sequence[str]) -> int:
    if "earthquake" not in classes:
        raise ConfigError(f"model: no class named earthquake among {', '.join(classes)}")
    return list(classes).index("earthquake")


def _thresholds(config: Config, grid: Grid, operation: Operation) -> Thresholds:
    t = config.trigger
    hops = grid.rate / grid.hop
    return Thresholds(
        on=operation.on,
        off=operation.off,
        in_a_row=operation.in_a_row,
        release=t.release,
        dead_k=round(t.dead_s * hops),
        longest_k=max(1, round(t.longest_s * hops)),
    )


def rules(config: Config, stations: Stations) -> Rules | None:
    c = config.coincidence
    if c is False:
        return None
    return Rules(
        min_stations=c.min_stations,
        window_ns=int(c.window_s * NS),
        speed_km_s=c.speed_km_s,
        tolerance_ns=int(c.tolerance_s * NS),
        hold_ns=int(c.hold_s * NS),
        flowing_ns=int(c.flowing_s * NS),
        longest_ns=int(c.longest_s * NS),
        places=stations.places,
    )


def policy(config: Config) -> Policy:
    w = config.windows
    return Policy(
        max_wait_ns=int(w.max_wait_s * NS),
        ring_ns=int(w.ring_s * NS),
        future_ns=int(w.future_s * NS),
        jump_ns=int((w.ring_s - 30.0) * NS),
        score_incomplete=w.incomplete == "score",
        bridge_ns=int(w.bridge_s * NS),
    )


def compose(
    config: Config,
    scorer: Scorer,
    stations: Stations,
    source: Source,
    outbox: Outbox,
    saved: Saved,
    hooks: Hooks,
    wake_publisher: Callable[[], None],
    *,
    may_drop: bool,
) -> Pipeline:
    """The stages, joined. ``may_drop``: an overloaded machine leaves windows out rather than fall behind."""
    rule = rules(config, stations)
    policies = policy(config)

    def station(subject: str, expected: frozenset[str], next_k: int | None) -> Station:
        return Station(
            subject, scorer.grid, policies, expected=expected, orient=stations.orient(subject), next_k=next_k
        )

    def trigger(subject: str, state: TriggerState | None) -> Trigger:
        return Trigger(subject, scorer.grid, scorer.thresholds, scorer.name, state)

    parts = Parts(
        source=source,
        station=station,
        worker=Worker(scorer.model, config.worker.batch_size, hooks, scorer.earthquake),
        batcher=Batcher(config.worker.batch_size, int(config.worker.longest_wait_ms * 1_000_000)),
        trigger=trigger,
        coincidence=Coincidence(rule, saved.coincidence) if rule is not None else None,
        alerting=Alerting(config.mode, scorer.identity, scorer.grid, stations.places),
        acknowledgement=Acknowledgement(policies.ring_ns),
        overload=Overload(int(config.worker.max_behind_s * NS)) if may_drop else None,
        outbox=outbox,
        wake_publisher=wake_publisher,
        hooks=hooks,
        hold_ns=rule.hold_ns if rule is not None else 0,
        queue_packets=QUEUE_PACKETS,
    )
    return Pipeline(parts, saved.triggers)


def run(config: Config, extra_hooks: Sequence[Hooks] = ()) -> int:
    """Watch until SIGTERM or SIGINT; then 0. Raises `ConfigError` where it cannot start."""
    with ExitStack() as stack:
        stopping = stack.enter_context(signals())
        metrics = Metrics(config.metrics.max_stations)
        hooks = Fan([metrics, *extra_hooks])
        ready = threading.Event()
        stack.callback(_serve(config, metrics, ready).stop)
        scorer, stations = load_scorer(config), read_stations(config.inventory, config.places)
        metrics.describe(scorer.identity.model_dump(), {"version": version("quake")})
        stack.enter_context(_alone(config.state))
        outbox, saved = _open_outbox(config, scorer)
        stack.callback(outbox.close)
        source = _source(config, saved, hooks)
        publisher = _publisher(config, scorer, outbox, hooks)
        pipeline = compose(
            config, scorer, stations, source, outbox, saved, hooks, publisher.wake, may_drop=config.mode == "live"
        )
        scorer.model.warm_up(pipeline.shapes)
        log.info(
            "model %s %s on %s, %s", scorer.name.name, scorer.identity.version, scorer.model.device, scorer.thresholds
        )
        log.info("%s", Operation.of(config, scorer.model.spec))
        publisher.start()
        stack.callback(publisher.stop, PUBLISH_DRAIN_S)
        source.start()
        stack.callback(source.stop)
        ready.set()
        pipeline.run(_once(stopping, source.stop))
        return 0


def _once(stopping: threading.Event, stop_source: Callable[[], None]) -> Callable[[], bool]:
    """Receiving ends first, so that what was received can be decided to its end."""

    def asked() -> bool:
        if not stopping.is_set():
            return False
        stop_source()
        return True

    return asked


def _serve(config: Config, metrics: Metrics, ready: threading.Event) -> HealthServer:
    try:
        server = HealthServer(config.metrics.host, config.metrics.port, metrics, ready.is_set)
    except OSError as error:
        raise ConfigError(f"metrics.port: {config.metrics.host}:{config.metrics.port}: {error.strerror}") from error
    log.info("metrics at %s/metrics, health at /healthz and /readyz", server.address)
    return server


@contextmanager
def _alone(state: Path) -> Iterator[None]:
    """Two daemons on one state would undo each other's resume points. The lock goes with the process, however it ends."""
    try:
        state.mkdir(parents=True, exist_ok=True)
        lock = (state / "lock").open("w")
    except OSError as error:
        raise ConfigError(f"state: {state}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"state: {state}: another daemon is at work there") from error
        yield


def _open_outbox(config: Config, scorer: Scorer) -> tuple[Outbox, Saved]:
    try:
        outbox = Outbox(config.state / "outbox.sqlite")
        return outbox, outbox.load(scorer.fingerprint)
    except OutboxError as error:
        raise ConfigError(f"state: {error}") from error


def check(config: Config) -> Scorer:
    """All that `run` makes of the configuration, without a connection, a thread or a file. Raises `ConfigError`."""
    stations, scorer = read_stations(config.inventory, config.places), load_scorer(config)
    source = _source(config, Saved({}, None, {}), Hooks())
    with Outbox(":memory:") as outbox:
        _publisher(config, scorer, outbox, Hooks())
        compose(config, scorer, stations, source, outbox, Saved({}, None, {}), Hooks(), lambda: None, may_drop=False)
    return scorer


def _publisher(config: Config, scorer: Scorer, outbox: Outbox, hooks: Hooks) -> Publisher:
    try:
        return Publisher(publish_settings(config, scorer), outbox.path, hooks)
    except ValueError as error:
        raise ConfigError(f"redis.url: {error}") from error


def _source(config: Config, saved: Saved, hooks: Hooks) -> SeedLinkSource:
    try:
        return SeedLinkSource(
            source_settings(config), _stored(saved), queue_packets=QUEUE_PACKETS, on_event=hooks.source
        )
    except ValueError as error:
        raise ConfigError(f"source: {error}") from error


def _stored(saved: Saved) -> Callable[[str, str], ResumePoint | None]:
    return lambda server, station: saved.resume.get((server, station))


def source_settings(config: Config) -> list[SourceSettings]:
    return [
        SourceSettings(
            urls=s.servers,
            select=s.select,
            silence_s=s.silence_s,
            refresh_s=s.refresh_s,
            failback_s=s.failback_s,
            max_wait_s=config.windows.max_wait_s,
        )
        for s in config.source
    ]


def publish_settings(config: Config, scorer: Scorer) -> PublishSettings:
    r = config.redis
    return PublishSettings(
        url=r.url,
        keys=Keys.of(config.mode, r.prefix),
        mode=config.mode,
        daemon=config.daemon,
        dead_k=scorer.thresholds.dead_k,
        retention_ns=int(r.retention_d * 86_400 * NS),
        again_ns=int(r.retention_h * 3_600 * NS),
        max_age_ns=int(r.max_age_s * NS),
    )


@contextmanager
def signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set; the earlier handlers come back."""
    asked = threading.Event()

    def handle(number: int, _: FrameType | None) -> None:
        log.info("%s: finishing", signal.Signals(number).name)
        asked.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
