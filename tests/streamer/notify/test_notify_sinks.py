"""Each sink against a real server: what arrives, what is tried again, what is refused, and that no secret is told."""

from __future__ import annotations

import base64
import io
import json
import logging
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_alerts import NOW_NS, alert
from notify_servers import Hooked, broker, certificate, free_port, hooked, listening, mailbox, until
from obspy import read_events
from obspy.io.quakeml.core import _validate
from pydantic import SecretStr, TypeAdapter, ValidationError
from standardwebhooks.webhooks import Webhook as Verifier
from standardwebhooks.webhooks import WebhookVerificationError

from quake.alerts import Alert, Mode, Status
from quake.times import NS
from streamer.config import ConfigError
from streamer.notify import mail as mail_module
from streamer.notify import mqtt as mqtt_module
from streamer.notify import webhook as webhook_module
from streamer.notify.config import AnySink
from streamer.notify.sink import DeferredError, RefusedError
from streamer.notify.wording import TEXT, TITLE, Notice, of_alert

SECRET = base64.b64encode(bytes(range(32))).decode()
PASSWORD = "a-pass-word-of-the-watch"


def made(**keys: Any) -> Any:
    return TypeAdapter(AnySink).validate_python(keys)


def notice(**changes: Any) -> Notice:
    return of_alert(TITLE, TEXT, alert(**changes))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def _no_secret_in_the_log(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    caplog.set_level(logging.DEBUG)
    yield
    told = [
        record.getMessage() for record in caplog.get_records("call") if not record.name.startswith("mail.")
    ]  # the server's
    assert not [line for line in told if PASSWORD in line or SECRET in line]


@pytest.fixture
def hook() -> Iterator[Hooked]:
    with hooked() as server:
        yield server


class TestWebhook:
    def sink(self, url: str, **keys: Any) -> Any:
        return made(kind="webhook", url=url, secret=SECRET, **keys)

    def test_a_verifier_of_the_standard_takes_it_and_nothing_else(self, hook: Hooked) -> None:
        self.sink(hook.url, token=PASSWORD).send(notice(), time.time_ns())
        ((headers, body),) = hook.posts
        content = Verifier(f"whsec_{SECRET}").verify(body, headers)
        assert Alert.model_validate(content["data"]["alert"]) == alert()
        assert content["type"] == "alert.open"
        assert headers["webhook-id"] == f"{alert().id}:0"
        assert headers["authorization"] == f"Bearer {PASSWORD}"
        for change in ({"webhook-id": "other"}, {"webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}):
            with pytest.raises(WebhookVerificationError):
                Verifier(SECRET).verify(body, {**headers, **change})
        with pytest.raises(WebhookVerificationError):
            Verifier(SECRET).verify(body.replace(b"open", b"shut", 1), headers)

    def test_another_try_has_the_same_key_and_a_time_of_its_own(self, hook: Hooked) -> None:
        for now_s in (1000, 2000):
            self.sink(hook.url).send(notice(), now_s * 10**9)
        assert len(set(hook.keys)) == 1
        assert [headers["webhook-timestamp"] for headers, _ in hook.posts] == ["1000", "2000"]

    @pytest.mark.parametrize(
        ("status", "headers", "after_s"),
        [
            (500, {}, 0),
            (503, {"Retry-After": "7"}, 7),
            (429, {"Retry-After": "9999999"}, 300),
            (429, {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0),
            (404, {}, 0),
            (401, {}, 0),
            (302, {"Location": "http://127.0.0.1:1/"}, 0),  # urllib would follow with a GET, without the alert
        ],
    )
    def test_what_is_tried_again(self, hook: Hooked, status: int, headers: dict[str, str], after_s: float) -> None:
        hook.answers.append((status, headers))
        with pytest.raises(DeferredError, match=f"HTTP {status}") as told:
            self.sink(hook.url).send(notice(), NOW_NS)
        assert told.value.after_s == after_s
        assert len(hook.posts) == 1

    @pytest.mark.parametrize("status", [400, 410, 413, 422])
    def test_what_is_refused(self, hook: Hooked, status: int) -> None:
        hook.answers.append((status, {}))
        with pytest.raises(RefusedError, match=f"HTTP {status}"):
            self.sink(hook.url).send(notice(), NOW_NS)

    def test_nobody_there_or_nobody_who_answers(self, hook: Hooked, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(DeferredError, match="refused"):
            self.sink(f"http://127.0.0.1:{free_port()}/").send(notice(), NOW_NS)
        monkeypatch.setattr(webhook_module, "TIMEOUT_S", 0.2)
        hook.gate.clear()
        with pytest.raises(DeferredError, match="timed out"):
            self.sink(hook.url).send(notice(), NOW_NS)

    def test_tls_is_verified(self, files: tuple[Path, Path]) -> None:
        with hooked(files) as server:
            with pytest.raises(DeferredError, match="CERTIFICATE_VERIFY_FAILED"):
                self.sink(server.url).send(notice(), NOW_NS)
            self.sink(server.url, ca=files[0]).send(notice(), NOW_NS)
            assert len(server.posts) == 1

    @pytest.mark.parametrize("secret", ["", "not base64!", base64.b64encode(b"short").decode()])
    def test_a_secret_that_is_none(self, secret: str) -> None:
        with pytest.raises(ValidationError, match="openssl rand"):
            made(kind="webhook", url="https://h/", secret=secret)

    def test_an_authority_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="none"):
            self.sink("https://h/", ca=tmp_path / "none.pem").prepare()


class TestMail:
    def sink(self, port: int, **keys: Any) -> Any:
        plain = {"kind": "mail", "host": "127.0.0.1", "port": port, "tls": "none", "sender": "quake@example.org"}
        return made(**{**plain, "recipients": ["one@example.org", "two@example.org"], **keys})

    def test_text_and_hypertext_over_tls_with_a_password(self, files: tuple[Path, Path]) -> None:
        login = {"tls": "starttls", "user": "watch", "password": PASSWORD}
        with mailbox(files, PASSWORD) as box:
            with pytest.raises(DeferredError, match="CERTIFICATE_VERIFY_FAILED"):
                self.sink(box.port, **login).send(notice(), NOW_NS)
            with pytest.raises(DeferredError, match="535"):
                self.sink(box.port, **login | {"password": "wrong"}, ca=files[0]).send(notice(), NOW_NS)
            self.sink(box.port, **login, ca=files[0]).send(notice(mode=Mode.EXERCISE), NOW_NS)
        ((recipients, mail),) = box.mails
        assert recipients == ["one@example.org", "two@example.org"]
        assert mail["Subject"] == "EXERCISE Earthquake: 1 station, 2023-11-14 22:13:20 UTC"
        assert mail["Date"].datetime.timestamp() == NOW_NS / 1e9
        plain, rich = mail.get_body(("plain",)), mail.get_body(("html",))
        assert plain is not None
        assert rich is not None
        assert "Stations     1: XX.ABC" in plain.get_content()
        assert "<td>XX.ABC</td>" in rich.get_content()

    def test_only_who_has_it_not_yet_gets_it_again(self) -> None:
        with mailbox() as box:
            sink = self.sink(box.port)
            box.answers["two@example.org"] = ["451 grey", "451 grey"]
            for _ in range(2):
                with pytest.raises(DeferredError, match="451"):
                    sink.send(notice(), NOW_NS)
            sink.send(notice(), NOW_NS)
            assert [to for to, _ in box.mails] == [["one@example.org"], ["two@example.org"]]
            sink.send(notice(name="b"), NOW_NS)
            assert box.mails[2][0] == ["one@example.org", "two@example.org"]

    def test_one_full_mailbox_holds_up_the_others_for_five_minutes_once(self, caplog: pytest.LogCaptureFixture) -> None:
        with mailbox() as box:
            sink, later_ns = self.sink(box.port), NOW_NS + round((mail_module.STRAGGLERS_S + 1) * NS)
            box.answers["two@example.org"] = ["452 full"] * 4
            for _ in range(2):
                with pytest.raises(DeferredError, match="452"):
                    sink.send(notice(), NOW_NS)
            sink.send(notice(), later_ns)
            assert "do not have it" in caplog.text
            sink.send(notice(name="b"), later_ns)  # and is not waited for
            sink.send(notice(name="c"), later_ns)
            assert [len(to) for to, _ in box.mails] == [1, 1, 2]
            box.answers["two@example.org"] = ["452 full"]  # as at first, once it has taken one
            with pytest.raises(DeferredError, match="452"):
                sink.send(notice(name="d"), later_ns)

    def test_nobody_is_given_up_for_what_kept_all_of_them_waiting(self) -> None:
        with mailbox() as box:
            sink, later_ns = self.sink(box.port), NOW_NS + round((mail_module.STRAGGLERS_S + 1) * NS)
            box.answers = {"one@example.org": ["451 wait"], "two@example.org": ["451 wait", "450 grey"]}
            for now_ns in (NOW_NS, later_ns):
                with pytest.raises(DeferredError):
                    sink.send(notice(), now_ns)
            sink.send(notice(), later_ns)
            assert [to for to, _ in box.mails] == [["one@example.org"], ["two@example.org"]]

    def test_a_server_that_thinks_long_and_is_gone_then_has_it_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mail_module, "TIMEOUT_S", 0.5)
        with mailbox() as box:
            box.thinks_s, box.parts = 1.0, False
            self.sink(box.port).send(notice(), NOW_NS)
            assert len(box.mails) == 1

    def test_one_recipient_who_is_gone_costs_the_others_nothing(self, caplog: pytest.LogCaptureFixture) -> None:
        with mailbox() as box:
            sink = self.sink(box.port)
            box.answers = {"one@example.org": ["550 gone"]}
            sink.send(notice(), NOW_NS)
            assert [to for to, _ in box.mails] == [["two@example.org"]]
            assert "550" in caplog.text
            box.answers = {"one@example.org": ["550 gone"], "two@example.org": ["451 wait", "550 gone"]}
            with pytest.raises(DeferredError):
                sink.send(notice(name="b"), NOW_NS)
            with pytest.raises(RefusedError, match="550"):  # nobody had it
                sink.send(notice(name="b"), NOW_NS)

    def test_a_server_that_goes_away_among_the_recipients(self) -> None:
        """Whom it did not speak of has nothing either."""
        with mailbox() as box:
            sink = self.sink(box.port)
            box.answers["one@example.org"] = ["421 closing"]
            with pytest.raises(DeferredError):
                sink.send(notice(), NOW_NS)
            sink.send(notice(), NOW_NS)
            assert [to for to, _ in box.mails] == [["one@example.org", "two@example.org"]]

    @pytest.mark.parametrize(("answer", "error"), [("554 spam", RefusedError), ("452 full", DeferredError)])
    def test_a_message_that_is_not_taken(self, answer: str, error: type[Exception]) -> None:
        with mailbox() as box:
            box.data.append(answer)
            with pytest.raises(error, match=answer[:3]):
                self.sink(box.port).send(notice(), NOW_NS)

    def test_nobody_there_or_nobody_who_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with pytest.raises(DeferredError, match="refused"):
            self.sink(free_port()).send(notice(), NOW_NS)
        monkeypatch.setattr(mail_module, "TIMEOUT_S", 0.2)
        with hooked() as mute, pytest.raises(DeferredError, match="timed out"):  # waits for a request
            self.sink(mute.server_address[1]).send(notice(), NOW_NS)

    @pytest.mark.parametrize(
        "keys",
        [
            {"user": "watch"},
            {"user": "watch", "password": PASSWORD},  # in the clear
            {"recipients": []},
            {"recipients": ["nobody"]},
            {"sender": "a@b\nBcc: c@d"},
        ],
    )
    def test_what_cannot_be(self, keys: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            self.sink(25, **keys)


class TestMqtt:
    # paho-mqtt leaves the socket of a failed handshake to the collector.
    @pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
    def test_tls_and_password(self, tmp_path: Path, files: tuple[Path, Path]) -> None:
        keys: dict[str, Any] = {"kind": "mqtt", "host": "127.0.0.1", "user": "watch", "password": PASSWORD}
        with broker(tmp_path, files, PASSWORD) as port:
            with pytest.raises(DeferredError, match="CERTIFICATE_VERIFY_FAILED"):
                made(**keys, port=port).send(notice(), NOW_NS)
            with pytest.raises(DeferredError, match="Not authorized"):
                made(**keys | {"password": "wrong"}, port=port, ca=files[0]).send(notice(), NOW_NS)
            made(**keys, port=port, ca=files[0], retain=True).send(notice(), NOW_NS)

    def test_it_is_there_once_the_broker_says_so(self, tmp_path: Path) -> None:
        keys: dict[str, Any] = {"kind": "mqtt", "host": "127.0.0.1", "tls": False}
        with broker(tmp_path) as port, listening(port, "quake/#") as heard:
            made(**keys, port=port).send(notice(), NOW_NS)
            made(**keys, port=port, topic="quake/exercise").send(notice(mode=Mode.EXERCISE), NOW_NS)
            until(lambda: len(heard) == 2)
            assert [(message.topic, message.qos) for message in heard] == [("quake/alerts", 1), ("quake/exercise", 1)]
            data = [json.loads(message.payload)["data"] for message in heard]
            assert [one["mark"] for one in data] == [None, "EXERCISE"]
            assert Alert.model_validate(data[0]["alert"]) == alert()

    def test_nobody_there_or_nobody_who_answers(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mqtt_module, "TIMEOUT_S", 0.3)
        sink = made(kind="mqtt", host="127.0.0.1", tls=False, port=free_port())
        with pytest.raises(DeferredError, match="refused"):
            sink.send(notice(), NOW_NS)
        with hooked() as mute, pytest.raises(DeferredError, match="says nothing"):
            sink.model_copy(update={"port": mute.server_address[1]}).send(notice(), NOW_NS)

    def test_a_broker_that_does_not_confirm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(mqtt_module, "TIMEOUT_S", 0.5)
        with socket.create_server(("127.0.0.1", 0)) as listening:

            def welcome() -> None:
                with listening.accept()[0] as connection:
                    connection.recv(1000)
                    connection.sendall(b"\x20\x02\x00\x00")  # CONNACK, and no PUBACK ever
                    while connection.recv(1000):
                        pass

            thread = threading.Thread(target=welcome)
            thread.start()
            sink = made(kind="mqtt", host="127.0.0.1", tls=False, port=listening.getsockname()[1])
            with pytest.raises(DeferredError, match="does not confirm"):
                sink.send(notice(), NOW_NS)
            thread.join(10)
            assert not thread.is_alive()  # hung up on

    @pytest.mark.parametrize(
        "keys", [{"topic": "a/#"}, {"topic": ""}, {"password": "x"}, {"tls": False, "user": "u", "password": "x"}]
    )
    def test_what_cannot_be(self, keys: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            made(kind="mqtt", host="h", **keys)


class TestQuakeML:
    def test_the_newest_revision_valid_and_marked(self, tmp_path: Path) -> None:
        sink = made(kind="quakeml", folder=tmp_path / "new")
        sink.prepare()
        station = alert().stations[0].model_copy(update={"latitude": 48.0, "longitude": 11.0})
        sink.send(notice(stations=(station,)), NOW_NS)
        sink.send(notice(stations=(station,), revision=3, status=Status.CLOSED), NOW_NS)
        sink.send(notice(mode=Mode.EXERCISE), NOW_NS)
        drill, real = sorted(file.name for file in (tmp_path / "new").iterdir())[::-1]
        assert (drill, real) == (f"EXERCISE-{alert().id}.xml", f"{alert().id}.xml")
        for name in (drill, real):
            assert _validate(io.BytesIO((tmp_path / "new" / name).read_bytes()))
        (event,) = read_events(str(tmp_path / "new" / real))
        assert event.creation_info.version == "3"
        (event,) = read_events(str(tmp_path / "new" / drill))
        assert event.event_descriptions[0].text.startswith("EXERCISE")

    def test_a_folder_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(ConfigError, match="folder"):
            made(kind="quakeml", folder=tmp_path / "file").prepare()
        with pytest.raises(DeferredError):  # a disk that is full, or was taken out
            made(kind="quakeml", folder=tmp_path / "gone").send(notice(), NOW_NS)


@pytest.mark.filterwarnings("ignore:.imghdr. is deprecated:DeprecationWarning")  # Apprise, below Python 3.13
class TestApprise:
    def sink(self, url: str) -> Any:
        return made(kind="apprise", url=url)

    def test_delivered_or_not(self, hook: Hooked) -> None:
        sink = self.sink(f"{hook.url.replace('http', 'json').replace('//', f'//me:{PASSWORD}@')}/{PASSWORD}")
        sink.prepare()
        sink.send(notice(mode=Mode.EXERCISE), NOW_NS)
        content = json.loads(hook.posts[0][1])
        assert content["title"].startswith("EXERCISE")
        assert "Stations     1: XX.ABC" in content["message"]
        hook.answers.append((500, {}))
        with pytest.raises(DeferredError, match="Apprise"):
            sink.send(notice(), NOW_NS)

    @pytest.mark.parametrize(
        "url", ["tgram://123456789:abcdefg_hijklmnop/1/2", "mailtos://u:p@h.org?to=a@b.org,c@d.org"]
    )
    def test_one_url_with_several_targets(self, url: str) -> None:
        with pytest.raises(ConfigError, match="names 2 targets"):
            self.sink(url).prepare()

    @pytest.mark.parametrize(
        "url", ["nothing", f"nosuch://{PASSWORD}", f"json://h {PASSWORD}", "json://a, json://b", f"slack://{PASSWORD}"]
    )
    def test_what_is_not_one_url(self, url: str) -> None:
        with pytest.raises(ConfigError, match="not one URL") as told:
            self.sink(url).prepare()
        assert PASSWORD not in str(told.value)


@pytest.mark.parametrize(
    ("module", "keys"), [("apprise", {"kind": "apprise", "url": "json://h"}), ("paho", {"kind": "mqtt", "host": "h"})]
)
def test_a_missing_extra_is_one_clear_error(module: str, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [one for one in sys.modules if one.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=r"pip install 'quake\[notify\]'"):
        made(**keys).prepare()


def test_secrets_are_not_shown() -> None:
    sink = made(kind="webhook", url="https://h/", secret=SECRET, token=PASSWORD)
    assert SECRET not in repr(sink)
    assert isinstance(sink.token, SecretStr)
    assert PASSWORD not in sink.model_dump_json()
