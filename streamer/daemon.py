"""The life of the process: a configuration is watched until it is asked to end, is given another, or fails too often.

`run` is the life of the process, `Daemon` what goes on in it. A reload and a fault end as a stop does, in the outbox, and
what follows begins as a process does: the servers are asked again from the resume points, so that no sample is lost, and
there is one way to begin. What the parts are is `streamer.composition`'s.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from importlib.metadata import version

from streamer import systemd
from streamer.composition import (
    Watch,
    compose,
    notes_of,
    prepare,
    publish_settings,
    publisher,
    shadowed,
    shard,
    source,
    warm_up,
)
from streamer.config import Config, ConfigError
from streamer.dashboard.beside import Page
from streamer.handover import within
from streamer.hooks import Fan, Hooks
from streamer.host_clock import HostClock
from streamer.http import serve
from streamer.live import Feed, feeding
from streamer.metrics import Metrics
from streamer.operation import Operation
from streamer.outbox import DamagedError, Outbox, OutboxError
from streamer.process import Asked, alone, signals
from streamer.publisher import Publisher, PublishSettings
from streamer.reload import Budget, Reload
from streamer.salvage import open_outbox
from streamer.source import SeedLinkSource
from streamer.takeover import forget, take_over
from streamer.watchdog import Watchdog

PUBLISH_DRAIN_S = 5.0
"""How long a stop waits for Redis; what is left goes out at the next start."""
FAULTS, FAULTS_WITHIN_S = 5, 600.0
"""More faults of the stages than this within so long end the process: whoever started it is to know."""
PATIENCE_S = 60.0
"""For a former daemon on the same state to end: it decides what it has received, and publishes."""
AFTER_FAULT_S = 1.0
"""Pause before the stages are made anew."""

log = logging.getLogger(__name__)


class Daemon:
    """The stages of one configuration after another, on one outbox."""

    def __init__(
        self,
        watch: Watch,
        outbox: Outbox,
        hooks: Hooks,
        asked: Asked,
        ready: threading.Event,
        reload: Reload | None,
        page: Page,
    ) -> None:
        self._watch, self._outbox, self._hooks, self._page = watch, outbox, hooks, page
        self._asked, self._ready, self._reload = asked, ready, reload
        self._publishing: tuple[PublishSettings, Publisher] | None = None

    def run(self) -> None:
        """Until it is asked to stop; raises what the stages raised once it did so too often."""
        budget = Budget(FAULTS, FAULTS_WITHIN_S)
        try:
            while not self._asked.stop:
                try:
                    self._watch_on()
                except DamagedError:
                    raise  # the next start puts the file aside and saves what it can: this process holds it open
                except Exception:
                    if self._asked.stop or not budget.spend():
                        raise
                    log.exception("a fault; beginning again from the outbox, %d more in %g s allowed", *budget.left)
                    time.sleep(AFTER_FAULT_S)
        finally:
            self._stop_publishing()

    def _watch_on(self) -> None:
        """The stages of the present configuration, until the process or the configuration ends."""
        self._watch = self._next()
        watch = self._watch
        self._page.follow(watch.config)
        with feeding(watch, self._hooks) as feed:
            self._watch_with(watch, feed)

    def _watch_with(self, watch: Watch, feed: Feed | None) -> None:
        hooks = Fan([self._hooks, feed]) if feed else self._hooks
        if not take_over(watch, self._outbox, hooks, lambda: self._asked.stop):
            return
        saved = within(self._outbox.load(watch.scorer.fingerprint), shard(watch.config))
        receiving, publishing = source(watch.config, saved, hooks), self._publish(watch)
        hooks.began(watch.scorer.identity, watch.scorer.grid, receiving.expected)
        pipeline = compose(
            watch.config,
            watch.scorer,
            watch.stations,
            receiving,
            self._outbox,
            saved,
            shadowed(watch, hooks),
            publishing.wake,
            may_drop=watch.config.mode == "live",
            characteriser=watch.characteriser,
            notes=notes_of(watch),
        )
        log.info("%s", described(watch))
        if feed:
            feed.start(receiving.expected)
        receiving.start()
        try:
            self._ready.set()
            systemd.notify("READY=1")
            pipeline.run(lambda: self._ends(receiving, publishing))
        finally:
            receiving.stop()

    def _next(self) -> Watch:
        return (self._reload and self._reload.take()) or self._watch

    def _ends(self, receiving: SeedLinkSource, publishing: Publisher) -> bool:
        """Receiving ends first, so that what was received can be decided to its end."""
        if not publishing.is_alive():
            raise RuntimeError("the publisher has ended")
        if self._asked.reload:
            self._asked.reload = False
            self._reload_soon()
        if not (self._asked.stop or (self._reload and self._reload.is_due)):
            return False
        receiving.stop()
        return True

    def _reload_soon(self) -> None:
        if self._reload is None:
            log.warning("asked for another configuration, but this process was started without a file")
        else:
            self._reload.attempt(self._watch)

    def _publish(self, watch: Watch) -> Publisher:
        """The thread that is at work, if it does what this configuration wants."""
        settings = publish_settings(watch.config, watch.scorer)
        if self._publishing is not None and self._publishing[0] == settings and self._publishing[1].is_alive():
            return self._publishing[1]
        self._stop_publishing()
        made = publisher(watch.config, watch.scorer, self._outbox, self._hooks)
        made.start()
        self._publishing = settings, made
        return made

    def _stop_publishing(self) -> None:
        if self._publishing is not None:
            self._publishing[1].stop(PUBLISH_DRAIN_S)
            self._publishing = None


def run(
    config: Config,
    extra_hooks: Sequence[Hooks] = (),
    reread: Callable[[], Config] | None = None,
    log_options: Sequence[str] = (),
    *,
    is_kept: bool = False,
) -> int:
    """Watch until SIGTERM or SIGINT; then 0. ``reread``: the configuration anew, for SIGHUP. ``log_options``: of the command
    line, for the page's process. ``is_kept``: by a program that starts it on one machine or another, so that Redis may know
    more of its stations than the outbox here, and a former one may still be at work. Raises `ConfigError` where it cannot start."""
    with ExitStack() as stack:
        asked = stack.enter_context(signals())
        metrics, watchdog = Metrics(config.metrics.max_stations), Watchdog()
        hooks = Fan([metrics, watchdog, HostClock(metrics), *extra_hooks])
        ready = threading.Event()
        stack.callback(serve(config.metrics, metrics, ready.is_set).stop)
        watch = prepare(config)
        metrics.describe({"version": version("quake")})
        stack.enter_context(alone(config.state, PATIENCE_S if is_kept else 0.0))
        outbox = _open_outbox(config, watch.scorer.fingerprint)
        stack.callback(outbox.close)
        if is_kept:
            forget(outbox)
        warm_up(watch)
        stack.enter_context(watchdog)
        reload = Reload(reread, hooks) if reread else None
        page = Page(log_options)
        stack.callback(page.stop)
        Daemon(watch, outbox, hooks, asked, ready, reload, page).run()
        systemd.notify("STOPPING=1")
        return 0


def described(watch: Watch) -> str:
    """For the log."""
    scorer = watch.scorer
    decision = Operation.of(watch.config, scorer.model.spec)
    name = f"model {scorer.name.name} {scorer.identity.version} on {scorer.model.device}"
    return f"{name}, {scorer.thresholds}; {decision}; characteriser {watch.characteriser or 'switched off'}"


def _open_outbox(config: Config, fingerprint: str) -> Outbox:
    try:
        outbox = open_outbox(config.state / "outbox.sqlite")
        outbox.load(fingerprint)  # what cannot be read is told now
        return outbox
    except OutboxError as error:
        raise ConfigError(f"state: {error}") from error
