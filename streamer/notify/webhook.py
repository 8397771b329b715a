"""A POST of JSON, signed as Standard Webhooks 1.0 says (standardwebhooks.com), for which every language has a verifier.

``webhook-id`` is the idempotency key: the same for every try and after a crash; ``webhook-timestamp`` is that of the try.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from quake.times import NS, format_ns
from streamer.notify.sink import TIMEOUT_S, DeferredError, RefusedError, Telling, tls
from streamer.notify.wording import Notice

REFUSALS = {400, 410, 413, 415, 422}
"""Answers to this message; others speak of the server or the way there (401, 404 while it is set up anew), and pass."""
LONGEST_AFTER_S = 300.0
"""However long a server asks to be left alone."""
FEWEST_BYTES = 24
"""Of a secret, as the standard asks."""


def _secret(value: SecretStr) -> SecretStr:
    try:
        length = len(key_of(value))
    except binascii.Error:
        raise ValueError("not base64 (openssl rand -base64 32 makes one)") from None
    if length < FEWEST_BYTES:
        raise ValueError(f"shorter than {FEWEST_BYTES} bytes (openssl rand -base64 32 makes one)")
    return value


class Webhook(Telling):
    kind: Literal["webhook"]
    url: str = Field(pattern=r"^https?://[^/\s]", description="One with a token in it comes from the environment")
    secret: Annotated[SecretStr, AfterValidator(_secret)] = Field(
        description="Base64, `whsec_` before it or not; from the environment"
    )
    token: SecretStr | None = Field(
        default=None, min_length=1, description="Sent as `Authorization: Bearer`; from the environment"
    )
    ca: Path | None = Field(default=None, description="PEM of the authority that signed the server's certificate")

    def prepare(self) -> None:
        tls(self.ca)

    def send(self, notice: Notice, now_ns: int) -> None:
        content = body(notice)
        headers = signed(content, notice.key, now_ns // NS, key_of(self.secret))
        if self.token is not None:
            headers["Authorization"] = f"Bearer {self.token.get_secret_value()}"
        handlers = _NoRedirect, urllib.request.HTTPSHandler(context=tls(self.ca))
        request = urllib.request.Request(self.url, content, headers)
        try:
            with urllib.request.build_opener(*handlers).open(request, timeout=TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            with error:
                raise answered(error.code, error.headers.get("Retry-After", "")) from None
        except (OSError, HTTPException) as error:
            raise DeferredError(getattr(error, "reason", error) or type(error).__name__) from error


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """urllib would follow with a GET, and the alert would be gone."""

    def redirect_request(self, *_: object) -> None:
        return None


def key_of(secret: SecretStr) -> bytes:
    return base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)


def body(notice: Notice) -> bytes:
    """``data.alert`` is as the published schema says; null for the heartbeat."""
    content = {
        "type": notice.type,
        "timestamp": format_ns(notice.time_ns),
        "data": {
            "mark": notice.mark or None,
            "title": notice.title,
            "text": notice.text,
            "left_out": dict(notice.left_out),
            "alert": notice.alert and notice.alert.model_dump(mode="json"),
        },
    }
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()


def signed(content: bytes, key: str, time_s: int, secret: bytes) -> dict[str, str]:
    """The headers. What is signed is id, time and body with dots between."""
    digest = hmac.digest(secret, f"{key}.{time_s}.".encode() + content, hashlib.sha256)
    return {
        "Content-Type": "application/json",
        "User-Agent": "quake",
        "webhook-id": key,
        "webhook-timestamp": str(time_s),
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def answered(status: int, retry_after: str) -> DeferredError | RefusedError:
    if status in REFUSALS:
        return RefusedError(f"HTTP {status}")
    after_s = min(float(retry_after), LONGEST_AFTER_S) if retry_after.isdecimal() else 0.0
    return DeferredError(f"HTTP {status}", after_s)
