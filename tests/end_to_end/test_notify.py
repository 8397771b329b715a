"""`quake-streamer notify` as a process: alerts come by the real publisher, and `kill -9` comes in the midst of deliveries."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import cap_rules
import pytest
from made_alerts import alert
from notify_servers import broker, hooked, listening, mailbox, until
from obspy import read_events
from standardwebhooks.webhooks import Webhook as Verifier
from valkey_server import Valkey

from quake.alerts import Alert, Keys, Status
from streamer.hooks import Hooks
from streamer.outbox import Outbox, Produced, Progress
from streamer.publisher import Publisher, PublishSettings
from streamer.stages import NS

PROGRAM = (sys.executable, "-m", "streamer", "notify")
SECRET = base64.b64encode(bytes(range(32))).decode()
SINKS = {"siren": "webhook", "night": "mail", "bus": "mqtt", "feed": "cap", "archive": "quakeml", "phones": "apprise"}
CONFIGURATION = """\
[redis]
url = "{redis}"
prefix = "{prefix}"
[metrics]
port = 0
[to.siren]
kind = "webhook"
url = "{siren}"
[to.night]
kind = "mail"
host = "127.0.0.1"
port = {smtp}
tls = "none"
sender = "quake@example.org"
recipients = ["watch@example.org"]
rate = {{ burst = 100 }}
[to.bus]
kind = "mqtt"
host = "127.0.0.1"
port = {mqtt}
tls = false
[to.feed]
kind = "cap"
sender = "quake@example.org"
folder = "feed"
[to.archive]
kind = "quakeml"
folder = "archive"
[to.phones]
kind = "apprise"
rate = {{ burst = 100 }}
"""


class Scene:
    """All servers, a configuration of all sinks, and what arrived."""

    def __init__(self, folder: Path, valkey: Valkey, stack: ExitStack) -> None:
        self.folder, self.valkey = folder, valkey
        self.siren, self.phones = stack.enter_context(hooked()), stack.enter_context(hooked())
        self.box, port = stack.enter_context(mailbox()), stack.enter_context(broker(folder))
        self.heard = stack.enter_context(listening(port, "#"))
        self.config = folder / "notify.toml"
        self.config.write_text(
            CONFIGURATION.format(
                redis=valkey.url, prefix=valkey.prefix, siren=self.siren.url, smtp=self.box.port, mqtt=port
            )
        )
        url = self.phones.url.replace("http", "json")
        self.environment = {**os.environ, "QUAKE_TO__SIREN__SECRET": SECRET, "QUAKE_TO__PHONES__URL": url}
        self.log = folder / "log"

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        with (
            self.log.open("ab") as log,
            subprocess.Popen([*PROGRAM, self.config], env=self.environment, stdout=log, stderr=log) as process,
        ):
            try:
                until(lambda: process.poll() is not None or len(self.groups()) == len(SINKS), 60)
                assert process.poll() is None, self.log.read_text()
                yield process
            finally:
                process.kill()

    def groups(self) -> list[dict[str, Any]]:
        with self.valkey.client() as client:
            stream = Keys(self.valkey.prefix).events
            return list(client.xinfo_groups(stream)) if client.exists(stream) else []  # type: ignore[arg-type]

    def is_done(self, count: int) -> bool:
        """Whether every sink has let go of so many entries."""
        return all(group["entries-read"] == count and not group["pending"] for group in self.groups())

    def get(self, path: str) -> str:
        (address, *_) = re.findall(r"metrics at (\S+)/metrics", self.log.read_text())[::-1]
        with urllib.request.urlopen(address + path, timeout=10) as answer:
            return str(answer.read().decode())

    def arrived(self) -> dict[str, list[tuple[str, int]]]:
        """By sink: id and revision of each, as often as it came."""
        hooks, bus = ([json.loads(one)["data"]["alert"] for one in bodies] for bodies in (self._bodies(), self._bus()))
        feed = [cap_rules.check(path.read_bytes()) for path in sorted((self.folder / "feed").glob("[!.]*.xml"))]
        archive = [read_events(str(path))[0] for path in (self.folder / "archive").glob("[!.]*.xml")]
        told = [str(mail.get_body(("plain",)).get_content()) for _, mail in self.box.mails]  # type: ignore[union-attr]
        phones = [json.loads(body)["message"] for _, body in self.phones.posts]
        spoken = [[(found[1], int(found[2])) for text in texts if (found := _spoken(text))] for texts in (told, phones)]
        names = [cap_rules.text(top, "identifier").rpartition(".") for top in feed]
        return {
            "siren": [(one["id"], one["revision"]) for one in hooks],
            "bus": [(one["id"], one["revision"]) for one in bus],
            "feed": [(ident, int(revision)) for ident, _, revision in names],
            "archive": [(e.resource_id.id.rpartition("/")[2], int(e.creation_info.version)) for e in archive],
            "night": spoken[0],
            "phones": spoken[1],
        }

    def _bodies(self) -> list[bytes]:
        return [body for _, body in self.siren.posts]

    def _bus(self) -> list[bytes]:
        return [message.payload for message in self.heard]


def _spoken(text: str) -> re.Match[str] | None:
    return re.search(r"Alert +(\S+), revision (\d+)", text)


@pytest.fixture
def scene(tmp_path: Path, valkey: Valkey) -> Iterator[Scene]:
    with ExitStack() as stack:
        yield Scene(tmp_path, valkey, stack)


@contextmanager
def publishing(scene: Scene) -> Iterator[Outbox]:
    """What is committed to it goes to Redis, as the daemon's does."""
    settings = PublishSettings(
        url=scene.valkey.url,
        keys=Keys(scene.valkey.prefix),
        daemon="d",
        dead_ms=15_000,
        retention_ns=30 * 86_400 * NS,
        again_ns=48 * 3600 * NS,
        most_bytes=1 << 30,
        max_age_ns=300 * NS,
    )
    with Outbox(scene.folder / "outbox.sqlite") as outbox:
        publisher = Publisher(settings, outbox.path, Hooks())
        publisher.start()
        yield outbox
        publisher.stop(10.0)


def new(name: str, revision: int = 0, **changes: Any) -> Alert:
    now_ns = time.time_ns()
    return alert(name, revision, **{"created": now_ns, "onset": now_ns, **changes})


def test_kill_9_in_the_midst_of_deliveries_loses_nothing(scene: Scene) -> None:
    opened = [new(f"n{n}") for n in range(8)]
    closed = [new(f"n{n}", 3, status=Status.CLOSED) for n in range(8)]
    scene.siren.gate.clear()
    with publishing(scene) as outbox:
        with scene.running() as process:
            outbox.commit(Progress(alerts=[Produced(one) for one in opened]))
            until(lambda: scene.siren.posts and len(scene.box.mails) >= 2)  # the webhook hangs, the mail does not wait
            process.send_signal(signal.SIGKILL)
            process.wait()
        scene.siren.gate.set()
        outbox.commit(Progress(alerts=[Produced(one) for one in closed]))
        wanted = {(one.id, one.revision) for one in (*opened, *closed)}
        newest = {(one.id, one.revision) for one in closed}
        with scene.running() as process:
            until(lambda: scene.is_done(len(wanted)))
            until(lambda: scene.get("/metrics").count('_delivered_total{to="') == len(SINKS))
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
    arrived = scene.arrived()
    assert set(arrived) == set(SINKS)
    for to, came in arrived.items():
        assert set(came) == (newest if to == "archive" else wanted), to
        again = len(came) - len(set(came))
        assert again <= 1, f"{to}: only what was under way at the kill comes twice"
        order = [one.id for one in opened]
        assert to in ("archive", "feed") or [ident for ident, r in dict.fromkeys(came) if r == 0] == order
    twice = [headers["webhook-id"] for headers, _ in scene.siren.posts][:2]
    assert twice == [f"{opened[0].id}:0"] * 2  # the same key, for whoever would not act twice
    for headers, body in scene.siren.posts[1:]:
        Verifier(SECRET).verify(body, headers)
    assert SECRET not in scene.log.read_text()


def test_a_test_goes_through_every_sink_and_says_which_worked(scene: Scene) -> None:
    scene.siren.answers = [(503, {})]
    ended = subprocess.run(
        [*PROGRAM, scene.config, "--test"],
        env=scene.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    lines = dict.fromkeys(SINKS, "delivered") | {"siren": "not delivered: HTTP 503"}
    assert ended.stdout.splitlines() == [f"{to}: {outcome}" for to, outcome in lines.items()]
    until(lambda: scene.heard)
    ((_, mail),) = scene.box.mails
    assert mail["Subject"].startswith("EXERCISE ")
    assert [json.loads(message.payload)["data"]["mark"] for message in scene.heard] == ["EXERCISE"]
    (cap,) = (scene.folder / "feed").iterdir()
    assert cap_rules.text(cap_rules.check(cap.read_bytes()), "status") == "Exercise"
    assert [path.name.partition("-")[0] for path in (scene.folder / "archive").iterdir()] == ["EXERCISE"]
    assert json.loads(scene.phones.posts[0][1])["title"].startswith("EXERCISE ")
    assert not scene.groups()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "to: Field required"),
        ('kind = "webhook"\nurl = "https://h/"\nsecret = "abc"\n', "it comes from QUAKE_TO__A__SECRET"),
        ('kind = "cap"\nsender = "a@b"\nfolder = "/proc/x"\n', "to.a: folder: /proc/x"),
        ('kind = "quakeml"\nfolder = "x"\n[redis]\nurl = "http://h"\n', "redis.url"),
    ],
)
def test_what_cannot_be_used_is_told_at_once(
    content: str, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from streamer.cli import main

    (tmp_path / "n.toml").write_text(content and f"[to.a]\n{content}")
    assert main(["notify", str(tmp_path / "n.toml")]) == 2
    assert told in capsys.readouterr().err
