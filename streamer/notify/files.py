"""Sinks that are folders: a file is there whole or not at all, and is on the disk before the alert is acknowledged."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field

from quake.alerts import Alert
from streamer.config import ConfigError
from streamer.notify.sink import DeferredError, RefusedError, Sink
from streamer.notify.wording import Notice


class Folder(Sink):
    folder: Path = Field(description="Made if it is not there; beside the configuration if relative")

    def prepare(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"folder: {self.folder}: {error.strerror}") from error

    def write(self, name: str, content: bytes) -> None:
        part = self.folder / f".{name}.part"
        try:
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(self.folder / name)
            _sync(self.folder)
        except OSError as error:
            raise DeferredError(f"{error.strerror}: {self.folder / name}") from error


class QuakeML(Folder):
    """One file for an alert, with its newest revision."""

    kind: Literal["quakeml"]

    def send(self, notice: Notice, now_ns: int) -> None:
        if notice.alert is not None:
            self.write(f"{stem(notice)}.xml", quakeml(notice, notice.alert))


def quakeml(notice: Notice, alert: Alert) -> bytes:
    """With the title as its description, and so with the mark of what is no earthquake."""
    import io

    from obspy.core.event import EventDescription

    catalog = alert.to_quakeml()
    catalog.description = notice.title
    catalog[0].event_descriptions.append(EventDescription(text=notice.title))
    file = io.BytesIO()
    catalog.write(file, format="QUAKEML")
    return file.getvalue()


def stem(notice: Notice) -> str:
    """Of the file's name. An id that is none must not choose the folder."""
    ident = notice.alert.id if notice.alert else ""
    if not re.fullmatch(r"[\w-]+", ident, re.ASCII):
        raise RefusedError(f"no name for a file: {ident!r}")
    return f"{notice.mark}-{ident}" if notice.mark else ident


def _sync(folder: Path) -> None:
    """The name, too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
