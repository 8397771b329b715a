"""Where a SeedLink server is, how to speak with it, and with which secret: read from one URL.

    seedlink://host[:18000]                         SeedLink 3 through ObsPy's client
    seedlink://host?transport=seedlink-client       SeedLink 3 or 4 through the seedlink-client package
    seedlink4://[user:password@]host[:18000]        the same
    seedlinks://[user:password@]host[:18500]        the same over TLS; ``?verify=no`` takes any certificate

A name without a password (``token@``) is a token. Reserved characters in secrets are percent-encoded. Pure: this module
opens nothing, and neither `repr` nor `server` ever shows a secret.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from streamer.secret import redacted

PORT = 18000
TLS_PORT = 18500
"""IANA has registered neither; both are what servers and clients of the field use."""


class Transport(StrEnum):
    OBSPY = "obspy"
    SEEDLINK_CLIENT = "seedlink-client"


_SCHEMES = {
    "seedlink": Transport.OBSPY,
    "seedlink4": Transport.SEEDLINK_CLIENT,
    "seedlinks": Transport.SEEDLINK_CLIENT,
}
_OPTIONS = frozenset({"transport", "verify"})


class AddressError(ValueError):
    """The URL cannot be used; the message says what to write, and shows no secret."""


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int
    transport: Transport
    tls: bool = False
    verify: bool = True
    """Hold the server's certificate against the system's authorities (or SSL_CERT_FILE)."""
    auth: tuple[str, str] | str | None = field(default=None, repr=False)
    """(user, password), or a token."""

    @property
    def server(self) -> str:
        """The address without secrets, one spelling for each server and transport: the key of resume points."""
        scheme = "seedlinks" if self.tls else "seedlink" if self.transport is Transport.OBSPY else "seedlink4"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"

    def __str__(self) -> str:
        return self.server


redact = redacted


def parse_address(url: str) -> Address:
    """Raises AddressError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # its text may quote a part of a password
        raise AddressError(f"{redact(url)}: not a URL; reserved characters in secrets are percent-encoded") from None
    shown = redact(url)
    if parts.scheme not in _SCHEMES or not parts.hostname or parts.path.strip("/") or parts.fragment:
        raise AddressError(f"{shown}: write seedlink://HOST:PORT, seedlink4://HOST:PORT or seedlinks://HOST:PORT")
    options = _options(parts.query, shown)
    tls = parts.scheme == "seedlinks"
    address = Address(
        host=parts.hostname,
        port=port or (TLS_PORT if tls else PORT),
        transport=_transport(parts.scheme, options, shown),
        tls=tls,
        verify=_yes(options.get("verify", "yes"), shown),
        auth=_auth(parts),
    )
    if address.transport is Transport.OBSPY and address.auth is not None:
        raise AddressError(
            f"{shown}: SeedLink 3 knows no credentials; write seedlinks:// (or seedlink4://, not encrypted)"
        )
    return address


def _options(query: str, shown: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise AddressError(f"{shown}: unknown option {unknown[0]!r}; known are {', '.join(sorted(_OPTIONS))}")
    return options


def _transport(scheme: str, options: dict[str, str], shown: str) -> Transport:
    chosen = options.get("transport", _SCHEMES[scheme])
    if chosen not in set(Transport):
        raise AddressError(f"{shown}: transport {chosen!r}; known are {', '.join(Transport)}")
    if chosen == Transport.OBSPY and scheme != "seedlink":
        raise AddressError(f"{shown}: ObsPy's client speaks SeedLink 3 without TLS only; write seedlink://")
    return Transport(chosen)


def _yes(text: str, shown: str) -> bool:
    if text not in {"yes", "no"}:
        raise AddressError(f"{shown}: verify is yes or no, not {text!r}")
    return text == "yes"


def _auth(parts: SplitResult) -> tuple[str, str] | str | None:
    if parts.username is None:
        return None
    if parts.password is None:
        return unquote(parts.username)
    return unquote(parts.username), unquote(parts.password)
