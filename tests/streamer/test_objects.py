"""Archives in an object store: an S3 server over HTTP gives the alerts of the files themselves."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from made_archive import quarter_hour, without_clocks, write_sds
from made_scorer import SERVERS, loud_scorer
from obstore.store import from_url
from valkey_server import own_port

from quake.alerts import Mode
from streamer import objects, scanning
from streamer.archive import find
from streamer.config import Config, ConfigError, resolve
from streamer.objects import Object, StoreError, index_of, listed
from streamer.record_index import read_index
from streamer.server.records import RecordError
from streamer.trigger import Thresholds

BUCKET = "s3://quake"
SERVER = Path(__file__).parents[2] / "scripts" / "s3_server"
LIMITS = Thresholds(on=0.9, off=0.5, in_a_row=2, release=2, dead_k=15, longest_k=60)


def there_is_a_bucket(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(f"{url}/quake", method="PUT"), timeout=30).close()
    except OSError:
        return False
    return True


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """Its environment is made with the first use, which takes the network and a minute."""
    port = own_port()
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([SERVER, str(port)], stderr=subprocess.DEVNULL) as server:
        end_s = time.monotonic() + 240.0
        while not there_is_a_bucket(url):
            assert server.poll() is None, "scripts/s3_server ended"
            assert time.monotonic() < end_s, "the S3 server does not answer"
            time.sleep(0.1)
        yield url
        server.terminate()


@pytest.fixture
def store(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[objects.ObjectStore]:
    for name, value in {
        "ENDPOINT_URL": endpoint,
        "ALLOW_HTTP": "true",
        "REGION": "us-east-1",
        "ACCESS_KEY_ID": "anybody",
        "SECRET_ACCESS_KEY": "anything",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setattr(objects, "RETRY", {"max_retries": 0})
    objects._store.cache_clear()
    objects.cached_index.cache_clear()
    yield from_url(BUCKET)
    objects._store.cache_clear()


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setattr(scanning, "load_scorer", lambda config: loud_scorer(40, 3.0, LIMITS))
    rules = {"min_stations": 3, "window_s": 5.0, "hold_s": 30.0}
    return resolve({**SERVERS, "coincidence": rules, "characteriser": {"enabled": False}, "mode": Mode.SCAN}, Path("x"))


def put(store: objects.ObjectStore, folder: Path, prefix: str) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            obstore.put(store, f"{prefix}/{path.relative_to(folder)}", path)


@pytest.mark.drill
def test_a_store_gives_the_alerts_of_the_files_that_lie_there(
    tmp_path: Path, config: Config, store: objects.ObjectStore
) -> None:
    """Those that are told by their names, and one that is not."""
    archive = write_sds(tmp_path / "sds", quarter_hour())
    one, *_ = sorted(archive.rglob("XX.S03*"))
    shutil.move(one, archive / "one.mseed")
    put(store, archive, "made/sds")
    expected = scanning.run(config, [archive])
    found = scanning.run(config, [f"{BUCKET}/made/sds"])
    assert expected.alerts
    assert (without_clocks(found.alerts), found.faults) == (without_clocks(expected.alerts), ())


@pytest.mark.drill
def test_what_is_listed(tmp_path: Path, store: objects.ObjectStore) -> None:
    obstore.put(store, "some/one.mseed", b"12")
    obstore.put(store, "somewhere/else", b"123")
    assert listed(f"{BUCKET}/some/") == [Object(BUCKET, "some/one.mseed", 2)]
    assert listed(f"{BUCKET}/somewhere/else") == [Object(BUCKET, "somewhere/else", 3)]
    with pytest.raises(FileNotFoundError, match=r"no such file: s3://quake/som$"):
        listed(f"{BUCKET}/som")


@pytest.mark.drill
def test_a_copy_leaves_nothing_behind_and_faults_name_the_object(
    tmp_path: Path, store: objects.ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    file = tmp_path / "file"
    file.write_bytes(b"".join(record.data for record in quarter_hour()[:3]) + bytes(64))
    obstore.put(store, "file", file)
    index, copied = read_index(file), index_of(Object(BUCKET, "file", file.stat().st_size))
    assert [copied.record(n) for n in range(3)] == [index.record(n) for n in range(3)]
    assert [f.replace(str(file), f"{BUCKET}/file") for f in index.faults] == list(copied.faults) != []
    obstore.put(store, "text", b"no records")
    with pytest.raises(RecordError, match=r"cannot read s3://quake/text: "):
        index_of(Object(BUCKET, "text", 10))
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.drill
def test_a_store_that_fails_halfway_stops_the_scan(
    tmp_path: Path, config: Config, store: objects.ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not "no data"."""
    put(store, write_sds(tmp_path / "sds", quarter_hour()), "lost")
    real = find([f"{BUCKET}/lost"])
    monkeypatch.setattr(scanning, "find", lambda *_: real)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    objects._store.cache_clear()
    found = scanning.run(config, [f"{BUCKET}/lost"])
    assert found.stopped
    assert found.alerts == ()
    assert "s3://quake/lost/" in found.faults[0]


@pytest.mark.drill
def test_a_store_that_does_not_answer_is_told(store: objects.ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    objects._store.cache_clear()
    with pytest.raises(StoreError, match="s3://quake/some: "):
        listed(f"{BUCKET}/some")


def test_without_obstore_one_line_says_what_to_install(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigError, match=r"obstore is not installed: pip install 'quake\[s3\]'"):
        scanning.run(config, [f"{BUCKET}/some"])
