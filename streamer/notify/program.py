"""The life of the notifier: a thread for each sink until it is asked to end, or one test message through each."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack

from quake.alerts import Alert, Kind, Latency, Mode, ModelIdentity, StationOnset, Status
from streamer import systemd
from streamer.config import ConfigError
from streamer.http import serve
from streamer.notify.config import NotifyConfig
from streamer.notify.delivery import Delivery
from streamer.notify.heartbeat import HeartbeatWatch
from streamer.notify.metrics import NotifierMetrics
from streamer.notify.sink import DeferredError, RefusedError
from streamer.notify.wording import of_alert
from streamer.process import signals

LOOK_S = 0.2
STOP_S = 15.0
"""A try that is under way may end; what it was about stays with the group."""

log = logging.getLogger(__name__)


def run(config: NotifyConfig) -> int:
    """Until SIGTERM or SIGINT: then 0, or 1 where a thread ended by itself. Raises `ConfigError` where it cannot start."""
    prepare(config)
    threads: list[Delivery | HeartbeatWatch] = []
    metrics = NotifierMetrics(list(config.to), lambda: _alive(threads), lambda: _lost(threads))
    threads += _threads(config, metrics)
    with ExitStack() as stack:
        asked = stack.enter_context(signals())
        stack.callback(serve(config.metrics, metrics, lambda: True).stop)
        for thread in threads:
            thread.start()
        stack.callback(_stop, threads)
        log.info("telling %s", ", ".join(f"{name} ({sink.kind})" for name, sink in config.to.items()))
        systemd.notify("READY=1")
        while not asked.stop and _alive(threads):
            time.sleep(LOOK_S)
        systemd.notify("STOPPING=1")
        return 0 if asked.stop else 1


def _threads(config: NotifyConfig, metrics: NotifierMetrics) -> Iterator[Delivery | HeartbeatWatch]:
    url, prefix = config.redis.url, config.redis.prefix
    try:
        for name, sink in config.to.items():
            yield Delivery(name, sink, url, prefix, metrics.sinks[name])
            if sink.hears_heartbeat:
                yield HeartbeatWatch(name, sink, url, prefix, config.heartbeat_s, metrics.sinks[name])
    except ValueError as error:
        raise ConfigError(f"redis.url: {error}") from error


def _alive(threads: Sequence[threading.Thread]) -> bool:
    return all(thread.is_alive() for thread in threads)


def _lost(threads: Sequence[threading.Thread]) -> bool:
    return any(isinstance(thread, HeartbeatWatch) and thread.pulse.lost for thread in threads)


def _stop(threads: Sequence[Delivery | HeartbeatWatch]) -> None:
    for thread in threads:
        thread.stop()
    end_s = time.monotonic() + STOP_S
    for thread in threads:
        thread.join(max(0.0, end_s - time.monotonic()))


def prepare(config: NotifyConfig) -> None:
    """Raises `ConfigError` for what no try could mend."""
    for name, sink in config.to.items():
        try:
            sink.prepare()
        except ConfigError as error:
            raise ConfigError(f"to.{name}: {error}") from error


def test(config: NotifyConfig) -> dict[str, str]:
    """An exercise through every sink, past filters, quiet hours and rate limits: what went wrong, by sink; empty: nothing."""
    prepare(config)
    alert, outcomes = exercise(time.time_ns()), {}
    for name, sink in config.to.items():
        try:
            sink.send(of_alert(sink.title, sink.text, alert), time.time_ns())
            outcomes[name] = ""
        except (DeferredError, RefusedError) as error:
            outcomes[name] = str(error)
        except Exception as error:
            log.exception("to.%s: a fault", name)
            outcomes[name] = f"a fault: {error}"
    return outcomes


def exercise(now_ns: int) -> Alert:
    """An alert of nothing, to try the way."""
    ident = str(uuid.uuid4())
    station = StationOnset(source_id="FDSN:XX_TEST__H_H", detection_id=ident, onset=now_ns, probability=1.0)
    return Alert(
        id=ident,
        revision=0,
        mode=Mode.EXERCISE,
        kind=Kind.EVENT,
        status=Status.OPEN,
        onset=now_ns,
        on_time=now_ns,
        stations=(station,),
        probability=1.0,
        model=ModelIdentity(name="none", version="0", sha256="0" * 64),
        latency=Latency(data_s=0.0, processing_s=0.0),
        complete=True,
        created=now_ns,
    )
