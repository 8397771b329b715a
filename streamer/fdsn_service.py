"""One FDSN web service over HTTP: dataselect, and the station service beside it. Every call is one try.

It does not follow redirections, which would turn a POST into a GET that asks for nothing.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from streamer.config import ConfigError
from streamer.fdsn import listed, root
from streamer.secret import SecretError, with_files

TIMEOUT_S = 120.0
"""A service that says nothing for this long is asked again: some look into a tape robot first."""
LONGEST_AFTER_S = 600.0
"""However long a service asks to be left alone."""
PASSING = {408, 429, 500, 502, 503, 504}
"""Answers that another try may change."""


class DownloadError(Exception):
    """What was asked for did not come, and may another time."""

    def __init__(self, cause: object, after_s: float = 0.0) -> None:
        super().__init__(str(cause))
        self.after_s = after_s
        """How long the service asks to be left alone; 0 where it does not say."""


class RefusedError(Exception):
    """Data that are for others."""


@dataclass(frozen=True, slots=True)
class Service:
    """All calls raise `DownloadError`, `RefusedError`, and `ConfigError` for what no other try mends."""

    url: str
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    @classmethod
    def of(cls, url: str, environment: Mapping[str, str | None]) -> Service:
        if urlsplit(url).username is not None:
            raise ConfigError("user and password of a service come from QUAKE_FDSN_USER and QUAKE_FDSN_PASSWORD(_FILE)")
        try:
            variables = with_files(environment)
        except SecretError as error:
            raise ConfigError(str(error)) from error
        user, password = variables.get("quake_fdsn_user"), variables.get("quake_fdsn_password")
        if (user is None) != (password is None):
            raise ConfigError("QUAKE_FDSN_USER and QUAKE_FDSN_PASSWORD(_FILE) go together")
        return cls(root(url), user, password)

    def check(self) -> None:
        """404 is "no data" from a service, and "no service" from anybody else."""
        if self._ask("dataselect/1/version") is None:
            raise ConfigError(f"{self.url}: there is no FDSN dataselect service")

    def stations(self, request: str) -> set[tuple[str, str]]:
        return listed((self._ask("station/1/query", request) or b"").decode("utf-8", "replace"))

    def records(self, request: str) -> bytes | None:
        """None where there are none."""
        return self._ask(f"dataselect/1/{'query' if self.user is None else 'queryauth'}", request)

    def _ask(self, path: str, body: str | None = None) -> bytes | None:
        content = None if body is None else body.encode()
        request = urllib.request.Request(f"{self.url}/fdsnws/{path}", content, {"User-Agent": "quake"})
        try:
            with self._opener().open(request, timeout=TIMEOUT_S) as answer:
                return answer.read() or None  # HTTPException where less came than was announced
        except urllib.error.HTTPError as error:
            with error:
                _refuse(error)
            return None
        except (OSError, HTTPException) as error:
            cause = getattr(error, "reason", None) or error
            raise DownloadError(f"{self.url}: {cause}") from error

    def _opener(self) -> urllib.request.OpenerDirector:
        known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if self.user is not None and self.password is not None:
            known.add_password(None, self.url, self.user, self.password)
        return urllib.request.build_opener(_NoRedirect, _Digest(known))


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


class _Digest(urllib.request.HTTPDigestAuthHandler):
    def http_error_401(self, request: Any, challenge: Any, *rest: Any) -> Any:
        """urllib leaves the connection of the challenge open."""
        try:
            answer = super().http_error_401(request, challenge, *rest)
        except urllib.error.HTTPError:
            challenge.close()
            raise
        if answer is not None:
            challenge.close()
        return answer


def _refuse(error: urllib.error.HTTPError) -> None:
    """Nothing for 404; raises for all others."""
    if error.code == 404:
        return
    said = error.headers.get("Location") or " ".join(error.read(500).decode("utf-8", "replace").split()) or error.reason
    text = f"{error.url}: HTTP {error.code}: {said}"
    if error.code == 403:
        raise RefusedError(text)
    if error.code not in PASSING:
        raise ConfigError(text)
    after = error.headers.get("Retry-After", "")
    raise DownloadError(text, min(float(after), LONGEST_AFTER_S) if after.isdecimal() else 0.0)
