"""The real programs, started and stopped by tests: the daemon as a process, our SeedLink server, the Valkey of the wheel."""

from __future__ import annotations

import re
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import redis

from quake.alerts import Alert, Keys, Kind, Mode
from streamer.coincidence import LINGER_NS

DAEMON = (sys.executable, "-m", "streamer", "run")
START_S = 90.0
"""A loaded machine imports torch slowly."""

CONFIGURATION = """\
mode = "replay"
state = "state"
daemon = "test"
{top}
[[source]]
servers = ["{seedlink}"]
select = ["*.*"]
[redis]
url = "{redis}"
prefix = "{prefix}"
[metrics]
port = 0
[coincidence]
min_stations = 3
window_s = 5.0
hold_s = {hold_s}
[windows]
max_wait_s = 20.0
"""


def wait_for(what: str, look: Callable[[], object], timeout_s: float) -> None:
    """Until ``look`` says yes; an assertion that names ``what`` otherwise."""
    end_s = time.monotonic() + timeout_s
    while not look():
        assert time.monotonic() < end_s, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)


@dataclass
class Place:
    """A folder, a prefix on Redis, and the daemons that run there one after the other."""

    folder: Path
    redis_url: str
    prefix: str = field(default_factory=lambda: f"{{quake}}:test-{uuid.uuid4().hex[:8]}")

    @property
    def keys(self) -> Keys:
        return Keys.of(Mode.REPLAY, self.prefix)

    @property
    def log(self) -> Path:
        return self.folder / "daemon.log"

    @property
    def outbox(self) -> Path:
        return self.folder / "state" / "outbox.sqlite"

    def configure(self, seedlink: str, *, redis_url: str | None = None, hold_s: float = 30.0, top: str = "") -> Path:
        path = self.folder / "quake.toml"
        url = redis_url or self.redis_url
        path.write_text(CONFIGURATION.format(seedlink=seedlink, redis=url, prefix=self.prefix, hold_s=hold_s, top=top))
        return path

    def start(self, config: Path, command: Sequence[str] = DAEMON, arguments: Sequence[str] = ()) -> Life:
        sink = self.log.open("ab")
        offset = self.log.stat().st_size
        with sink:
            process = subprocess.Popen(
                [*command, str(config), *arguments], stdout=sink, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
            )
        return Life(process, self.log, offset)

    def published(self) -> list[Alert]:
        """All that lies on the two streams, in their order."""
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as client:
            entries = [
                fields["alert"]
                for name in (self.keys.detections, self.keys.events)
                for _, fields in client.xrange(name)  # type: ignore[union-attr]
            ]
        return [Alert.model_validate_json(entry) for entry in entries]


@dataclass
class Life:
    """One process of the daemon."""

    process: subprocess.Popen[bytes]
    log: Path
    offset: int
    trusted: ssl.SSLContext | None = None
    """For metrics over TLS."""

    def __enter__(self) -> Life:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def text(self) -> str:
        with self.log.open("rb") as file:
            file.seek(self.offset)
            return file.read().decode()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def address(self) -> str:
        """Of metrics and health, once the log tells."""
        found: list[str] = []

        def look() -> bool:
            assert self.process.poll() is None, f"the daemon ended:\n{self.text()[-3000:]}"
            found.extend(re.findall(r"metrics at (https?://[^/]+)/metrics", self.text()))
            return bool(found)

        wait_for("the daemon tells where its metrics are", look, START_S)
        return found[0]

    def get(self, path: str, token: str = "") -> tuple[int, str]:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(self.address() + path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10, context=self.trusted) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> dict[str, float]:
        """Label text -> value."""
        with suppress(OSError):
            found = re.findall(rf"^{name}(?:\{{(.*)\}})? (\S+)$", self.get("/metrics")[1], re.M)
            return {labels: float(value) for labels, value in found}
        return {}

    def wait_newest(self, ends_ns: dict[str, int], timeout_s: float) -> None:
        """Until the newest sample of each station (``BW_UH3__S_H``) is the recording's last."""

        def look() -> bool:
            assert self.process.poll() is None, f"the daemon ended:\n{self.text()[-3000:]}"
            newest = self.metric("quake_newest_sample_timestamp_seconds")
            return all(newest.get(f'station="{name}"', 0.0) >= end_ns / 1e9 for name, end_ns in ends_ns.items())

        wait_for("every station's data have come to their end", look, timeout_s)

    def stop(self, timeout_s: float = 60.0) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout_s)


def while_more_may_come(alerts: list[Alert], end_ns: int) -> list[Alert]:
    """Without closings of events that are over at the end of the data: a scan knows that nothing follows, a daemon waits."""
    return [a for a in alerts if a.kind is Kind.DETECTION or not a.off_time or a.off_time + LINGER_NS <= end_ns]


def revisions(alerts: Sequence[Alert]) -> Counter[tuple[str, str, int, str]]:
    return Counter((str(a.kind), a.id, a.revision, str(a.status)) for a in alerts)


def ids(alerts: Sequence[Alert], kind: Kind | None = None) -> set[str]:
    return {a.id for a in alerts if kind is None or a.kind is kind}
