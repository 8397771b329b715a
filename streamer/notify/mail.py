"""An e-mail with a text and an HTML part, over SMTP with TLS."""

from __future__ import annotations

import html
import logging
import re
import smtplib
import socket
from contextlib import closing, suppress
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, Field, PrivateAttr, SecretStr, model_validator

from quake.alerts import StationOnset
from quake.times import NS, format_ns
from streamer.notify.deciding import Rate
from streamer.notify.sink import TIMEOUT_S, DeferredError, RefusedError, Telling, tls
from streamer.notify.wording import Notice, clean, name_of

log = logging.getLogger(__name__)

PORTS = {"starttls": 587, "tls": 465, "none": 25}
TAKING_S = 120.0
"""A server may take so long over a message (filters do): one that is let go too early has it, and gets it again."""
STRAGGLERS_S = 300.0
"""Recipients whose turn does not come hold up the others' next alert no longer."""


def _address(text: str) -> str:
    try:
        if Address(addr_spec=text).domain:
            return text
    except (ValueError, IndexError):  # the parser of the standard library falls over some of them
        pass
    raise ValueError("no e-mail address as watch@example.org")


EmailAddress = Annotated[str, AfterValidator(_address)]


class _Try(NamedTuple):
    """A notice on its way: its key, who is still to have it, how many have it, and since when."""

    key: str
    left: list[str]
    taken: int
    since_ns: int


class Mail(Telling):
    kind: Literal["mail"]
    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65_535, description="If not given that of `tls`: 587, 465 or 25")
    tls: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="`none` for a relay on this machine; no password is sent there"
    )
    ca: Path | None = Field(default=None, description="PEM of the authority that signed the server's certificate")
    user: str | None = None
    password: SecretStr | None = Field(default=None, min_length=1, description="From the environment")
    sender: EmailAddress
    recipients: tuple[EmailAddress, ...] = Field(min_length=1)
    rate: Rate | None = Rate()

    _trying: _Try = PrivateAttr(_Try("", [], 0, 0))
    _stragglers: set[str] = PrivateAttr(set())
    """Recipients who were given up last time: asked once a message, and not waited for."""

    @model_validator(mode="after")
    def _password_is_safe(self) -> Mail:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        if self.password is not None and self.tls == "none":
            raise ValueError("a password goes over TLS alone")
        return self

    def prepare(self) -> None:
        tls(self.ca)

    def send(self, notice: Notice, now_ns: int) -> None:
        """A recipient who has it does not get it again when another's server asks to wait, nor waits for that one long."""
        same = self._trying.key == notice.key
        _, left, taken, since_ns = self._trying if same else _Try(notice.key, list(self.recipients), 0, now_ns)
        try:
            refused = self._submit(message(notice, self.sender, self.recipients, now_ns), left)
        except smtplib.SMTPRecipientsRefused as error:  # nobody has it; whom the server did not speak of may yet
            refused = {**dict.fromkeys(left, (421, b"")), **error.recipients}
        except smtplib.SMTPDataError as error:
            raise (RefusedError if error.smtp_code >= 500 else DeferredError)(error) from error
        except (OSError, smtplib.SMTPException) as error:
            raise DeferredError(error) from error
        waiting = [one for one, (code, _) in refused.items() if code < 500]
        since_ns = since_ns if taken else now_ns  # nobody waits for the others while nobody has it
        taken += len(left) - len(refused)
        self._trying = _Try(notice.key, waiting, taken, since_ns)
        self._stragglers.difference_update(set(left) - set(refused))
        if taken and now_ns - since_ns > STRAGGLERS_S * NS:
            self._stragglers.update(waiting)
        if waiting and not (taken and self._stragglers.issuperset(waiting)):
            raise DeferredError(f"not all recipients were taken yet: {refused}")
        if not taken:
            raise RefusedError(f"no recipient was taken: {refused}")
        if refused:
            log.error("e-mail %s: some recipients were not taken, and do not have it: %s", notice.key, refused)

    def _submit(self, mail: EmailMessage, recipients: list[str]) -> dict[str, tuple[int, bytes]]:
        """Those that the server does not take, with what it says."""
        context, port, name = tls(self.ca), self.port or PORTS[self.tls], socket.gethostname()
        server = (
            smtplib.SMTP_SSL(self.host, port, name, timeout=TIMEOUT_S, context=context)
            if self.tls == "tls"
            else smtplib.SMTP(self.host, port, name, timeout=TIMEOUT_S)
        )
        with closing(server):
            if self.tls == "starttls":
                server.starttls(context=context)
            if self.user is not None and self.password is not None:
                server.login(self.user, self.password.get_secret_value())
            self._patient(server, TAKING_S)
            refused = server.send_message(mail, self.sender, recipients)
            self._patient(server, TIMEOUT_S)
            with suppress(OSError, smtplib.SMTPException):  # the message is taken, however the server parts
                server.quit()
            return refused

    @staticmethod
    def _patient(server: smtplib.SMTP, seconds: float) -> None:
        if server.sock is not None:
            server.sock.settimeout(seconds)


def message(notice: Notice, sender: str, recipients: tuple[str, ...], now_ns: int) -> EmailMessage:
    """All revisions of an alert are one conversation, and one that comes twice has the same id."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = sender, ", ".join(recipients), notice.title
    mail["Date"] = format_datetime(datetime.fromtimestamp(now_ns // NS, UTC))
    mail["Message-ID"] = _message_id(notice.key, sender)
    if notice.alert is not None and notice.told:
        mail["References"] = _message_id(f"{notice.alert.id}:{notice.told[0][0]}", sender)
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(notice.text)
    mail.add_alternative(hypertext(notice), subtype="html")
    return mail


def _message_id(key: str, sender: str) -> str:
    return f"<{re.sub(r'[^A-Za-z0-9-]', '.', key)}@{sender.rpartition('@')[2]}>"


def hypertext(notice: Notice) -> str:
    """Without pictures, scripts or links, which mail programs block or distrust."""
    banner = f"<p style='background:#fc0;color:#000;padding:8px'><b>{html.escape(notice.mark)}</b></p>"
    stations = notice.alert.stations if notice.alert else ()
    return (
        f"<!doctype html><html><head><meta charset='utf-8'><title>{html.escape(notice.title)}</title></head><body>"
        f"{banner if notice.mark else ''}<h2>{html.escape(notice.title)}</h2>"
        f"<pre style='font:inherit;white-space:pre-wrap'>{html.escape(notice.text)}</pre>"
        f"{_table(stations) if stations else ''}</body></html>"
    )


def _table(stations: tuple[StationOnset, ...]) -> str:
    rows = "".join(
        f"<tr><td>{html.escape(clean(name_of(station.source_id)))}</td><td>{format_ns(station.onset)}</td>"
        f"<td>{station.probability:.3f}</td></tr>"
        for station in sorted(stations, key=lambda station: station.onset)
    )
    return f"<table cellpadding='4'><tr><th>Station</th><th>Onset</th><th>Probability</th></tr>{rows}</table>"
