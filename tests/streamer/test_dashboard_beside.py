"""The page's process beside a daemon: started again, changed, ended, and never the daemon's concern."""

from __future__ import annotations

import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dashboard_server import until
from valkey_server import Valkey

from streamer.config import Config, ConfigError, resolve
from streamer.dashboard import beside
from streamer.dashboard.beside import Page, Start, check


def configured(redis_url: str = "redis://:s3cret@h:1/0", **page: Any) -> Config:
    source = {"servers": ["seedlink://none"], "select": ["*.*"]}
    content = {"source": [source], "mode": "replay", "redis": {"url": redis_url}, "page": {"enabled": True, **page}}
    return resolve(content, Path("/etc/quake/quake.toml"))


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("QUAKE_DASHBOARD_TOKEN", "QUAKE_REDIS_URL", "QUAKE_REDIS_URL_FILE"):
        monkeypatch.delenv(name, raising=False)


def test_it_has_the_options_of_the_command_and_no_secret_among_them() -> None:
    how = Start.of(configured(certificate="page.pem", key="page.key"), ["--log-level", "error"])
    *_, host, port, mode, prefix, certificate, key, level, error = how.command
    assert (host, port) == ("--host=127.0.0.1", "--port=9109")
    assert (mode, prefix) == ("--mode=replay", "--prefix={quake}")
    assert (certificate, key) == ("--certificate=/etc/quake/page.pem", "--key=/etc/quake/page.key")
    assert (level, error) == ("--log-level", "error")
    assert "s3cret" not in " ".join(how.command)
    own = {"quake_redis_url_file": "x", "QUAKE_DASHBOARD_TOKEN_FILE": "y"}
    assert how.environment(own) == {
        "QUAKE_REDIS_URL": "redis://:s3cret@h:1/0",
        "QUAKE_DASHBOARD_TOKEN_FILE": "y",
    }


def test_what_no_later_start_could_mend_is_told_before(monkeypatch: pytest.MonkeyPatch) -> None:
    check(configured())
    with pytest.raises(ConfigError, match=r"page: --host 0.0.0.0: .* set QUAKE_DASHBOARD_TOKEN"):
        check(configured(host="0.0.0.0"))
    check(configured(host="0.0.0.0", enabled=False))
    monkeypatch.setenv("QUAKE_DASHBOARD_TOKEN", "a token of some length")
    check(configured(host="0.0.0.0"))
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ConfigError, match=r"pip install 'quake\[dashboard\]'"):
        check(configured())
    with pytest.raises(ConfigError, match=r"page.certificate and page.key go together"):
        configured(key="page.key")


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    monkeypatch.setattr(beside, "RETRY_S", (0.05, 0.1))
    made = Page(["--log-level", "error"])
    yield made
    made.stop()
    assert not made.is_alive()


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:  # URLError is one, and so is the reset of a page that ends in the midst of an answer
        return False


def test_a_port_that_is_taken_is_tried_until_it_is_free_and_left_once_it_is_not_wanted(
    page: Page, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        page.follow(configured(valkey.url, port=port))
        until(lambda: "the page ended (exit code 2) and is started again" in caplog.text, 90)
    until(lambda: answers(port), 90)
    page.follow(configured(valkey.url, enabled=False))
    until(lambda: not answers(port), 30)
    assert page.is_alive()


def test_a_page_that_cannot_be_started_at_all_is_told(
    page: Page, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/none/python")
    page.follow(configured())
    until(lambda: "the page ended ([Errno 2] No such file" in caplog.text)
