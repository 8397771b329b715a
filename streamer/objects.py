"""Files in object stores: listed, and copied when their time comes. https://developmentseed.org/obstore/

``s3://BUCKET/PREFIX`` or ``gs://``. Where the store is and who asks comes from the environment
(``AWS_ENDPOINT_URL``, ``AWS_ACCESS_KEY_ID``, or the machine's role); obstore itself tries again what passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING

from streamer.record_index import Index, read_index
from streamer.server.records import RecordError

if TYPE_CHECKING:
    from obstore.store import ObjectStore, RetryConfig

RETRY: RetryConfig = {"max_retries": 6, "retry_timeout": timedelta(seconds=60)}
"""Of each request, with longer and longer waits between."""


INDICES = 64
"""Files whose records' places are remembered, a megabyte each: two days of ten stations."""


class StoreError(OSError):
    """A store does not answer, or not us: its data are not missing, but unknown."""


@dataclass(frozen=True, slots=True)
class Object:
    bucket: str
    """``s3://BUCKET``."""
    key: str
    size: int

    @property
    def name(self) -> str:
        return PurePosixPath(self.key).name

    def __str__(self) -> str:
        return f"{self.bucket}/{self.key}"


Place = Path | Object


def size_of(place: Place) -> int:
    """Bytes."""
    return place.size if isinstance(place, Object) else place.stat().st_size


def listed(url: str) -> list[Object]:
    """What lies under it as a folder, or the object that it names. Raises `StoreError`, FileNotFoundError."""
    import obstore

    scheme, _, rest = url.partition("://")
    name, _, prefix = rest.strip("/").partition("/")
    bucket = f"{scheme}://{name}"
    with _told(url):
        store = _store(bucket)
        found = [meta for batch in obstore.list(store, prefix or None) for meta in batch]
        found = found or [obstore.head(store, prefix)]
    return [Object(bucket, meta["path"], meta["size"]) for meta in sorted(found, key=lambda meta: meta["path"])]


def index_of(place: Place) -> Index:
    """As `read_index`, which an object's copy goes through; it lies on the disk for as long as the index does, without a name.
    Raises `StoreError` too."""
    if isinstance(place, Path):
        return read_index(place)
    with NamedTemporaryFile(prefix="quake-") as copy:
        for chunk in _chunks(place):
            copy.write(chunk)
        copy.flush()
        try:
            index = read_index(Path(copy.name))
        except RecordError as error:
            raise RecordError(str(error).replace(copy.name, str(place))) from error
    return replace(index, faults=tuple(fault.replace(copy.name, str(place)) for fault in index.faults))


@lru_cache(maxsize=INDICES)
def cached_index(place: Place, size: int) -> Index:
    """Pieces of an archive that follow one another share files. ``size``: a file that has grown is another. Raises as
    `index_of`."""
    return index_of(place)


def _chunks(place: Object) -> Iterator[bytes]:
    import obstore

    with _told(str(place)):
        for chunk in obstore.get(_store(place.bucket), place.key).stream():
            yield bytes(chunk)


@lru_cache(maxsize=8)
def _store(bucket: str) -> ObjectStore:
    from obstore.store import from_url

    return from_url(bucket, retry_config=RETRY)


@contextmanager
def _told(url: str) -> Iterator[None]:
    """obstore's errors as those of files."""
    from obstore.exceptions import BaseError

    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"no such file: {url}") from error
    except (BaseError, ValueError) as error:
        raise StoreError(f"{url}: {' '.join(str(error).split())[:300]}") from error
