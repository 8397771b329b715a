"""From a configuration to the parts that watch: the model, the stages, the source, the publisher. Opens nothing.

`compose` is the one place where stages meet; their life is `streamer.daemon`'s.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from quake.alerts import Keys, ModelIdentity
from streamer.acknowledge import Acknowledgement
from streamer.alerting import Alerting
from streamer.association.notes import Notes
from streamer.characteriser import Characteriser, load_characteriser
from streamer.coincidence import Coincidence, Rules
from streamer.config import SHIPPED_MODEL, Config, ConfigError
from streamer.dashboard.beside import check as check_page
from streamer.grid import Grid
from streamer.hooks import Fan, Hooks
from streamer.inventory import Stations, read_stations
from streamer.loading import load_compiled, shipped
from streamer.operation import Operation
from streamer.outbox import Outbox, Saved
from streamer.overload import Overload
from streamer.pipeline import Parts, Pipeline, Source
from streamer.publisher import Publisher, PublishSettings
from streamer.shadow import Shadow
from streamer.shard import Shard
from streamer.source import SeedLinkSource, SourceSettings
from streamer.source.resume import ResumePoint
from streamer.stages import NS
from streamer.station import Policy, Station
from streamer.storm import Limit
from streamer.trigger import ModelName, Thresholds, Trigger, TriggerState
from streamer.worker import Batcher, Worker

if TYPE_CHECKING:
    from quake.artifact import CompiledModel

QUEUE_PACKETS = 4096
"""Received and not yet placed: 2 MB, and a minute of 60 stations; beyond it the servers wait."""

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
        """Trigger states are of use only under the same of these; `streamer.cut_off` reads the grid back."""
        return f"{self.name.name}/{self.name.major}/{self.grid.rate}/{self.grid.window}/{self.grid.hop}"


@dataclass(frozen=True, slots=True)
class Watch:
    """What a configuration comes to once its files are read: all that can be wrong with it has been looked at."""

    config: Config
    scorer: Scorer
    stations: Stations
    shapes: tuple[int, ...]
    """Batch sizes that the model will see."""
    shadow: Scorer | None = None
    """The model on trial."""
    characteriser: Characteriser | None = None
    """None where the configuration wants none."""


def model_path(config: Config) -> Path:
    """The configured model, or the one installed beside the program."""
    return config.model.path or shipped(SHIPPED_MODEL)


def load_scorer(config: Config, before: Watch | None = None) -> Scorer:
    """Raises `ConfigError` where the model cannot be used or does not fit the configuration. ``before``: a watch whose
    model is taken over where it is the same file, read in the same way."""
    model = _same_model(config, before) or _load_model(config)
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


def warm_up(watch: Watch, before: Watch | None = None) -> None:
    """The models that ``before`` did not have: their first answers take long."""
    known = {id(scorer.model) for scorer in (before and before.scorer, before and before.shadow) if scorer}
    for scorer in (watch.scorer, watch.shadow):
        if scorer is not None and id(scorer.model) not in known:
            scorer.model.warm_up(watch.shapes)
    if watch.characteriser is not None:
        watch.characteriser.warm_up()


def _same_model(config: Config, before: Watch | None) -> CompiledModel | None:
    if before is None or before.config.model != config.model:
        return None
    try:
        digest = hashlib.sha256(model_path(config).read_bytes()).hexdigest()
    except OSError:
        return None  # loading says what is wrong with it
    return before.scorer.model if digest == before.scorer.model.sha256 else None


def _load_model(config: Config) -> CompiledModel:
    m = config.model
    return load_compiled(
        "model", model_path(config), m.device, sha256=m.sha256, threads=m.threads, trial=m.path is not None
    )


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
    characteriser: Characteriser | None = None,
    notes: Notes | None = None,
) -> Pipeline:
    """The stages, joined. ``may_drop``: an overloaded machine leaves windows out rather than fall behind. ``notes``: events
    are an associator's, which is told by them."""
    rule = rules(config, stations) if notes is None else None
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
        worker=Worker(scorer.model, config.worker.batch_size, hooks, scorer.earthquake, _on_cpu(config, scorer.model)),
        batcher=Batcher(config.worker.batch_size, int(config.worker.longest_wait_ms * 1_000_000)),
        trigger=trigger,
        characteriser=characteriser,
        coincidence=Coincidence(rule, saved.coincidence) if rule is not None else None,
        notes=notes,
        alerting=Alerting(config.mode, scorer.identity, scorer.grid, stations.places),
        acknowledgement=Acknowledgement(policies.ring_ns),
        limit=Limit(config.trigger.most_a_minute or None, saved.opened_ns),
        overload=Overload(int(config.worker.max_behind_s * NS)) if may_drop else None,
        outbox=outbox,
        wake_publisher=wake_publisher,
        hooks=hooks,
        hold_ns=rule.hold_ns if rule is not None else 0,
        queue_packets=QUEUE_PACKETS,
    )
    return Pipeline(parts, saved.triggers)


def _on_cpu(config: Config, model: CompiledModel) -> Callable[[], CompiledModel] | None:
    """What a worker whose device fails goes on with: the very same file, whatever lies under its name by then."""
    if config.model.on_device_fault == "exit" or model.device == "cpu":
        return None
    load = type(model).load
    return lambda: load(model.path, "cpu", sha256=model.sha256, threads=config.model.threads)


def prepare(config: Config, before: Watch | None = None) -> Watch:
    """All that `streamer.daemon.run` makes of the configuration, without a connection, a thread or a file that it writes.
    Raises `ConfigError`."""
    check_page(config)
    stations, scorer = read_stations(config.inventory, config.places), load_scorer(config, before)
    nothing = Saved({}, None, {})
    receiving = source(config, nothing, Hooks())
    with Outbox(":memory:") as outbox:
        publisher(config, scorer, outbox, Hooks())
        pipeline = compose(config, scorer, stations, receiving, outbox, nothing, Hooks(), lambda: None, may_drop=False)
    characteriser = load_characteriser(config, stations, scorer.grid)
    return Watch(config, scorer, stations, pipeline.shapes, load_shadow(config, scorer), characteriser)


def load_shadow(config: Config, scorer: Scorer) -> Scorer | None:
    """Raises `ConfigError` where the model on trial cannot be used, or reads other windows than the daemon's own."""
    wanted = config.shadow
    if wanted is None:
        return None
    model = config.model.model_copy(update={"path": wanted.path, "sha256": wanted.sha256})
    trigger = config.trigger.model_copy(
        update={"operating_point": wanted.operating_point, "on": None, "off": None, "in_a_row": None}
    )
    windows = config.windows.model_copy(update={"hop_s": scorer.grid.hop / float(scorer.grid.rate)})
    try:
        shadow = load_scorer(config.model_copy(update={"model": model, "trigger": trigger, "windows": windows}))
    except ConfigError as error:
        raise ConfigError(f"shadow: {error}") from error
    if shadow.grid != scorer.grid:
        raise ConfigError(f"shadow: {wanted.path} reads windows of {shadow.grid}, the model of {scorer.grid}")
    return shadow


def shadowed(watch: Watch, hooks: Hooks) -> Hooks:
    """The hooks, and the model on trial among them where there is one."""
    if watch.shadow is None:
        return hooks
    scorer = watch.shadow

    def trigger(subject: str) -> Trigger:
        return Trigger(subject, scorer.grid, scorer.thresholds, scorer.name)

    worker = Worker(scorer.model, watch.config.worker.batch_size, Hooks(), scorer.earthquake)
    return Fan([hooks, Shadow(worker, trigger, watch.scorer.thresholds.dead_k, hooks)])


def publisher(config: Config, scorer: Scorer, outbox: Outbox, hooks: Hooks) -> Publisher:
    try:
        return Publisher(publish_settings(config, scorer), outbox.path, hooks)
    except ValueError as error:
        raise ConfigError(f"redis.url: {error}") from error


def source(config: Config, saved: Saved, hooks: Hooks) -> SeedLinkSource:
    try:
        return SeedLinkSource(
            source_settings(config),
            _stored(saved),
            queue_packets=QUEUE_PACKETS,
            on_event=hooks.source,
            wanted=shard(config).has,
        )
    except ValueError as error:
        raise ConfigError(f"source: {error}") from error


def _stored(saved: Saved) -> Callable[[str, str], ResumePoint | None]:
    return lambda server, station: saved.resume.get((server, station))


def notes_of(watch: Watch) -> Notes | None:
    """None where the daemon decides events by itself."""
    return Notes(watch.scorer.identity) if watch.config.associator.enabled else None


def shard(config: Config) -> Shard:
    return Shard(config.shard.count, config.shard.index)


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
        daemon=config.daemon,
        dead_ms=scorer.grid.start_ns(scorer.thresholds.dead_k) // 1_000_000,
        retention_ns=int(r.retention_d * 86_400 * NS),
        again_ns=int(r.retention_h * 3_600 * NS),
        most_bytes=int(config.outbox_mb * 1e6),
        max_age_ns=int(r.max_age_s * NS),
        shard=shard(config),
        fingerprint=scorer.fingerprint,
        has_associator=config.associator.enabled,
    )
