"""What all sinks have in common: the keys that say what they are sent, and how they say that they cannot deliver."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from quake.alerts import Mode
from streamer.config import ConfigError
from streamer.notify.deciding import Wants
from streamer.notify.wording import TEXT, TITLE, Notice, check_template

TIMEOUT_S = 10.0
"""A server that says nothing for this long is asked again later."""


class DeferredError(Exception):
    """Not now: it is tried again, no sooner than ``after_s``."""

    def __init__(self, cause: object, after_s: float = 0.0) -> None:
        super().__init__(str(cause))
        self.after_s = after_s


class RefusedError(Exception):
    """Never: another try of the same message would end in the same way."""


class Sink(Wants):
    """A table ``[to.NAME]``. Subclasses have a ``kind`` of their own and are found by it."""

    title: Annotated[str, AfterValidator(check_template)] = Field(default=TITLE, min_length=1)
    text: Annotated[str, AfterValidator(check_template)] = TEXT

    @property
    def hears_heartbeat(self) -> bool:
        return False

    def prepare(self) -> None:
        """Once at the start. Raises `ConfigError` for what no try could mend."""

    def send(self, notice: Notice, now_ns: int) -> None:
        """One try, of bounded time. Raises `DeferredError`, `RefusedError`; whatever else it raises is a fault of ours."""
        raise NotImplementedError


class Telling(Sink):
    """One that speaks to people, and so of the heartbeat too."""

    heartbeat: bool = Field(default=True, description="Tells of a lost heartbeat, in quiet hours too; of `live` alone")

    @property
    def hears_heartbeat(self) -> bool:
        return self.heartbeat and self.mode is Mode.LIVE


def tls(ca: Path | None) -> ssl.SSLContext:
    """Verifies the server against ``ca``, PEM, or against what this machine trusts. Raises `ConfigError`."""
    try:
        return ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigError(f"ca: {ca}: {error.strerror or error}") from error


def missing(package: str) -> ConfigError:
    return ConfigError(f"{package} is not installed: pip install 'quake[notify]'")
