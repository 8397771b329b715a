"""Who may ask, and what a browser may do with the answer.

With a token, whatever tells of the observatory is for those who bring it: as a bearer's, or in a cookie that signing in sets
and scripts cannot read. Without one the page is for this machine, and answers to its names alone: else a foreign page could
reach it under a name of its own. What changes something must come from the page itself.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "quake"
MAX_BODY = 16_384
"""Bytes: a comment, and some."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
LOCAL = ("127.0.0.1", "localhost", "[::1]")
OPEN = ("/api/sign-in",)


class Token:
    def __init__(self, token: str | None) -> None:
        self._token = token
        self.cookie = token and hmac.new(token.encode(), b"quake dashboard", hashlib.sha256).hexdigest()
        """Tells that the token was known, and not the token."""

    @property
    def is_set(self) -> bool:
        return self._token is not None

    def fits(self, given: str) -> bool:
        return self._token is not None and _same(given, self._token)

    def trusts(self, headers: Headers) -> bool:
        if self._token is None or self.cookie is None:
            return True
        scheme, _, given = headers.get("authorization", "").partition(" ")
        cookie = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        return _same(cookie, self.cookie) or (scheme.lower() == "bearer" and self.fits(given.strip()))


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(errors="replace"), other.encode())


def refusal(token: Token, host: str, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
    """Status and reason; None for what may go on. ``host``: the one that is listened on."""
    if not token.is_set and _name(headers.get("host", "")) not in (*LOCAL, host):
        return 421, "without a token this page answers to the names of its own machine alone"
    if not path.startswith("/api/"):
        return None
    if path not in OPEN and not token.trusts(headers):
        return 401, "a token is needed"
    return None if method in ("GET", "HEAD") else _foreign(headers)


def _foreign(headers: Mapping[str, str]) -> tuple[int, str] | None:
    origin = headers.get("origin")
    if origin is not None and origin.partition("://")[2] != headers.get("host"):
        return 403, "not from this page"
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return 415, "application/json is wanted"
    if not headers.get("content-length", "0").isdigit() or int(headers.get("content-length", "0")) > MAX_BODY:
        return 413, "too long"
    return (411, "a length is needed") if "transfer-encoding" in headers else None


def _name(host: str) -> str:
    """Without the port."""
    return host if host.endswith("]") else host.rpartition(":")[0] or host


class Guard:
    """Around the application."""

    def __init__(self, app: ASGIApp, token: Token, host: str) -> None:
        self._app, self._token, self._host = app, token, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_told = scope["path"].startswith("/api/")

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update({**HEADERS, "Cache-Control": "no-store" if is_told else "no-cache"})
            await send(message)

        refused = refusal(self._token, self._host, scope["method"], scope["path"], Headers(scope=scope))
        answer = JSONResponse({"error": refused[1]}, refused[0]) if refused else self._app
        await answer(scope, receive, guarded)
