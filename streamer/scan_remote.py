"""Scores pieces on another machine: what Ray makes an actor of. Knows nothing of Ray.

A node is no copy of the machine that scans: what would make its scores others (another quake, another model) or fewer
(a file that it does not see) is refused, with the node's name.
"""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from streamer import logs
from streamer.config import Config, ConfigError, MetricsConfig, RedisConfig
from streamer.objects import StoreError
from streamer.scan_piece import PieceScorer, Scored
from streamer.scan_plan import Piece
from streamer.scan_pool import Job


def without_secrets(config: Config) -> Config:
    """Scoring asks no server: neither their addresses nor their passwords leave this machine."""
    return config.model_copy(update={"redis": RedisConfig(), "metrics": MetricsConfig(), "source": ()})


def with_whole_paths(piece: Piece) -> Piece:
    """A process elsewhere is not where this one was started."""
    parts = (replace(part, path=part.path.absolute()) if isinstance(part.path, Path) else part for part in piece.parts)
    return replace(piece, parts=tuple(parts))


class RemoteScorer:
    """Made on a node, loaded once, and asked for one piece after the other."""

    def load(self, job: Job, quake: str, log_level: str) -> None:
        """``quake``: the version that scans. Raises `ConfigError`."""
        if (here := version("quake")) != quake:
            raise ConfigError(f"node {socket.gethostname()} has quake {here}, and {quake} scans")
        logging.disable(logging.WARNING)  # of what the configuration comes to: the machine that scans has said so
        try:
            self._scorer: PieceScorer = job.scorer()
        except ConfigError as error:
            raise ConfigError(f"node {socket.gethostname()}: {error}") from error
        finally:
            logging.disable(logging.NOTSET)
        self._said = logs.collected(log_level)

    def score(self, piece: Piece, elsewhere: Mapping[Path, int]) -> bytes:
        """For `unpacked`. Bytes, because arrays that Ray unpacks are views into its store: read-only, and holding all of it.
        ``elsewhere``: what `seen` says where the scan is. Raises `StoreError`."""
        require_seen(elsewhere)
        scored = self._scorer.score(piece, _never)
        said = [self._said.get() for _ in range(self._said.qsize())]
        return pickle.dumps((scored, said), protocol=pickle.HIGHEST_PROTOCOL)


def unpacked(content: bytes) -> Scored:
    """What a piece came to; what was said meanwhile is said here."""
    scored, said = pickle.loads(content)
    assert isinstance(scored, Scored)
    for record in said:
        logging.getLogger(record.name).handle(record)
    return scored


def seen(piece: Piece) -> dict[Path, int]:
    """The files that can be read here, and their bytes. Objects are their store's matter."""
    sizes = {path: _size(path) for path in {part.path for part in piece.parts} if isinstance(path, Path)}
    return {path: size for path, size in sizes.items() if isinstance(size, int)}


def require_seen(elsewhere: Mapping[Path, int]) -> None:
    """Raises `StoreError`: what this node alone does not see is not missing from the archive. A file may have grown."""
    for path, size in elsewhere.items():
        here = _size(path)
        if isinstance(here, str) or here < size:
            told = here if isinstance(here, str) else f"{here} bytes of {size}"
            raise StoreError(f"node {socket.gethostname()} does not see {path} as the machine that scans does: {told}")


def _size(path: Path) -> int | str:
    """Bytes, or why it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.seek(0, os.SEEK_END)
    except OSError as error:
        return error.strerror or str(error)


def _never() -> bool:
    return False
