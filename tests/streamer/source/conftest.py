"""What the tests of the SeedLink source share: real records, and sources that are always stopped."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import obspy
import pytest

from streamer.server import Record, read
from streamer.source import SeedLinkSource, SourceSettings

UH = Path(obspy.__file__).parent / "signal/tests/data"


@pytest.fixture(scope="session")
def records() -> list[Record]:
    """27 May 2010: four stations of BW, UH3 with three components, in the order of a server."""
    return read(sorted(UH.glob("BW.UH?._.?H?.D.2010.147.cut.slist.gz")))


Start = Callable[..., SeedLinkSource]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(urls, resume, **settings)`: a running source of BW.UH* with short pauses."""
    running: list[SeedLinkSource] = []

    def run(urls: str | tuple[str, ...], resume: Any = None, **changes: Any) -> SeedLinkSource:
        on_event = changes.pop("on_event", lambda *_: None)
        queue_packets = changes.pop("queue_packets", 4096)
        given = {"select": ("BW.UH*",), "backoff_s": (0.05, 0.2), "max_wait_s": 0.0, **changes}
        settings = SourceSettings(urls=(urls,) if isinstance(urls, str) else urls, **given)
        source = SeedLinkSource([settings], resume or {}, on_event=on_event, queue_packets=queue_packets)
        running.append(source)
        source.start()
        return source

    yield run
    for source in running:
        source.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1, made for this run."""
    openssl = shutil.which("openssl")
    if openssl is None:
        assert not os.environ.get("CI"), "openssl is missing"
        pytest.skip("no openssl to make a certificate with:  apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=127.0.0.1"
    names = ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([openssl, *made.split(), *names], check=True, capture_output=True)
    return certificate


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, certificate.with_name("key.pem"))
    return context
